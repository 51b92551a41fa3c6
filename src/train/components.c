// The optimizers and schedules of this room as registry entries.
#include "train/optimizer.h"

#define EM_OPTIMIZER(symbol) extern const struct em_optimizer em_optimizer_##symbol;
#define EM_SCHEDULE(symbol) extern const struct em_schedule em_schedule_##symbol;
#include "train/list.def"
#undef EM_OPTIMIZER
#undef EM_SCHEDULE

static const struct em_optimizer *const optimizers[] = {
#define EM_OPTIMIZER(symbol) &em_optimizer_##symbol,
#define EM_SCHEDULE(symbol)
#include "train/list.def"
#undef EM_OPTIMIZER
#undef EM_SCHEDULE
};

static const struct em_schedule *const schedules[] = {
#define EM_OPTIMIZER(symbol)
#define EM_SCHEDULE(symbol) &em_schedule_##symbol,
#include "train/list.def"
#undef EM_OPTIMIZER
#undef EM_SCHEDULE
};

enum {
    OPTIMIZERS = sizeof optimizers / sizeof optimizers[0],
    SCHEDULES = sizeof schedules / sizeof schedules[0],
};

ember_status em_train_register(void)
{
    static struct em_component component[OPTIMIZERS + SCHEDULES];
    for (size_t i = 0; i < OPTIMIZERS; i++) {
        const struct em_optimizer *o = optimizers[i];
        component[i] =
            (struct em_component){EMBER_OPTIMIZER, o->name, o->help, o->options, o->size, o, NULL};
    }
    for (size_t i = 0; i < SCHEDULES; i++) {
        const struct em_schedule *s = schedules[i];
        component[OPTIMIZERS + i] =
            (struct em_component){EMBER_SCHEDULE, s->name, s->help, s->options, s->size, s, NULL};
    }
    return em_registry_add(component, OPTIMIZERS + SCHEDULES);
}

double em_learning_rate(const struct em_schedule *schedule, const void *options, double peak,
                        uint64_t step, uint64_t steps, uint64_t warmup)
{
    if (step < warmup) return peak * (double)(step + 1) / (double)warmup;
    const double left = steps > warmup ? (double)(steps - warmup) : 1;
    const double progress = (double)(step - warmup) / left;
    return peak * schedule->factor(options, progress < 1 ? progress : 1);
}
