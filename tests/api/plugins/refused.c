// Plug-ins that are refused: compiled once for each REFUSE_x.
#include <ember/ops.h>
#include <ember/plugin.h>

#ifndef REFUSE_NO_DESCRIPTOR

#ifndef REFUSE_BUILD
static ember_status build(ember_layer *l, ember_build *b)
{
    (void)l, (void)b;
    return EMBER_OK;
}
#endif

#ifdef REFUSE_UNDEFINED
// Within the prefix, so that nothing but Ember could have it.
ember_status ember_function_of_a_later_version(ember_flow *flow, ember_tensor *x, ember_tensor **y);
#endif

static ember_status forward(const ember_layer *l, ember_flow *f, ember_tensor *x, ember_tensor **y)
{
    (void)l;
#ifdef REFUSE_UNDEFINED
    return ember_function_of_a_later_version(f, x, y);
#else
    return ember_scale(f, x, 2, y);
#endif
}

struct doubled {
    ember_layer base;
    size_t hidden;
};

static const ember_option options[] = {
#ifdef REFUSE_OPTION
    EMBER_OPT_SIZE(struct doubled, hidden, 3, 4, 9, "a default below the range"),
#else
    EMBER_OPT_SIZE(struct doubled, hidden, 4, 4, 9, "any"),
#endif
    {0},
};

static const ember_layer_type doubled = {
#ifdef REFUSE_DUPLICATE
    .name = "swiglu",
#elif defined REFUSE_LAYER_NAME
    .name = "Doubled!",
#else
    .name = "doubled",
#endif
#ifdef REFUSE_KIND
    .kind = EMBER_OPTIMIZER,
#elif defined REFUSE_ROUTE
    .kind = EMBER_ROUTER,
#else
    .kind = EMBER_CHANNEL_MIXER,
#endif
#ifdef REFUSE_FLAGS
    .flags = 1u << 20,
#endif
#ifdef REFUSE_SIZE
    .size = 8,
#else
    .size = sizeof(struct doubled),
#endif
    .options = options,
#ifndef REFUSE_HELP
    .help = "twice x",
#endif
#ifndef REFUSE_BUILD
    .build = build,
#endif
    .forward = forward,
};

static const ember_layer_type *const layers[] = {
#ifdef REFUSE_EMPTY
    NULL,
#endif
    &doubled,
#ifdef REFUSE_TWICE
    &doubled,
#endif
    NULL,
};

const ember_plugin_descriptor ember_plugin = {
#ifdef REFUSE_ABI
    .abi = EMBER_PLUGIN_ABI + 1,
#else
    .abi = EMBER_PLUGIN_ABI,
#endif
#ifdef REFUSE_NAME
    .name = "no such/name",
#elif defined REFUSE_SAME_NAME
    .name = "example",
#else
    .name = "refused",
#endif
#ifndef REFUSE_VERSION
    .version = "1",
#endif
    .layers = layers,
};

#else

int refused_defines_something_else;
int refused_defines_something_else = 1;

#endif
