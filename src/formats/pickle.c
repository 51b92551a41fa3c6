#include <string.h>
#include <strings.h>

#include "formats/pickle.h"

bool em_pickle_name(const char *path)
{
    static const char *const endings[] = {".bin", ".pt", ".pth", ".ckpt", ".pkl"};
    const char *dot = strrchr(path, '.');
    for (size_t i = 0; dot && i < sizeof endings / sizeof *endings; i++)
        if (strcasecmp(dot, endings[i]) == 0) return true;
    return false;
}

ember_status em_pickle_refuse(const char *path, const unsigned char *data, size_t size)
{
    const bool zip = size >= 4 && memcmp(data, "PK\3\4", 4) == 0;
    // A safetensors header whose length ends in 0x80 begins alike, but then byte 8 is '{'.
    const bool pickle = size >= 2 && data[0] == 0x80 && data[1] >= 2 && data[1] <= 5 &&
                        !(size > 8 && data[8] == '{');
    if (!zip && !pickle && !em_pickle_name(path)) return EMBER_OK;
    return em_fail(
        EMBER_E_UNSUPPORTED,
        "%s: a pickle file, which Ember never reads because loading it can run code; convert it "
        "where you trust it: python -c \"import sys, torch; from safetensors.torch import "
        "save_file; save_file({k: v.clone().contiguous() for k, v in torch.load(sys.argv[1], "
        "map_location='cpu', weights_only=True).items()}, 'model.safetensors', "
        "metadata={'format': 'pt'})\" FILE",
        path);
}
