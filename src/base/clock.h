// The time seam.
#ifndef EM_BASE_CLOCK_H
#define EM_BASE_CLOCK_H

#include <stdint.h>

struct em_clock {
    double (*monotonic)(void); // seconds, for durations
    double (*wall)(void);      // seconds since 1970, for dates in logs
};
double em_clock_seconds(void);
double em_clock_wall(void);
void em_clock_use(const struct em_clock *clock); // NULL: the system's. For tests.

#endif
