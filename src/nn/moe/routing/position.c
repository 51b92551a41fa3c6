// By position: the experts take turns along the sequence.
#include <ember/ops.h>

struct position {
    ember_layer base;
    size_t span;
};

static const ember_option options[] = {
    EMBER_OPT_SIZE(struct position, span, 1, 1, 1 << 30,
                   "tokens that go to one expert before the next one's turn"),
    {0},
};

static ember_status build(ember_layer *l, ember_build *b)
{
    (void)l;
    EMBER_TRY(ember_build_need_tokens(b));
    ember_build_chooses(b, 1);
    return EMBER_OK;
}

static ember_status route(const ember_layer *l, ember_flow *f, ember_tensor *x,
                          ember_routing *routing)
{
    return ember_route_position(f, x, ((const struct position *)l)->span, routing);
}

extern const ember_layer_type em_layer_position;
const ember_layer_type em_layer_position = {
    .name = "position",
    .kind = EMBER_ROUTER,
    .size = sizeof(struct position),
    .options = options,
    .help = "spans of positions in turn, the first expert again after the last",
    .build = build,
    .route = route,
};
