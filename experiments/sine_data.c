// The sine task of ncps: 48 places of sin t and cos t, to become sin 2t. Usage: sine_data FILE
#include <math.h>

#include "tensors.h"

enum { PLACES = 48 };

int main(int argc, char **argv)
{
    static float in[PLACES][2], out[PLACES];
    const double turn = 3 * 3.14159265358979323846;
    if (argc != 2) return 2;
    for (int i = 0; i < PLACES; i++) {
        in[i][0] = (float)sin(turn * i / (PLACES - 1));
        in[i][1] = (float)cos(turn * i / (PLACES - 1));
        out[i] = (float)sin(2 * turn * i / (PLACES - 1));
    }
    const struct tensor tensors[] = {{"inputs", "F32", {1, 1, PLACES, 2}, 4, in},
                                     {"targets", "F32", {1, 1, PLACES, 1}, 4, out}};
    write_tensors(argv[1], tensors, 2);
    return 0;
}
