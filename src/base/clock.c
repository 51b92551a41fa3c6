#include "base/clock.h"

#include <time.h>

static double seconds_of(clockid_t id)
{
    struct timespec now;
    (void)clock_gettime(id, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static double system_monotonic(void)
{
    return seconds_of(CLOCK_MONOTONIC);
}

static double system_wall(void)
{
    return seconds_of(CLOCK_REALTIME);
}

static const struct em_clock system_clock = {system_monotonic, system_wall};
static const struct em_clock *current = &system_clock;

double em_clock_seconds(void)
{
    return current->monotonic();
}

double em_clock_wall(void)
{
    return current->wall();
}

void em_clock_use(const struct em_clock *clock)
{
    current = clock ? clock : &system_clock;
}
