/**
 * @file layer.h  The interface of components: what a layer, router, norm or block is made of.
 *
 * A component is one `.c` file: an option table, build() which declares parameters and children,
 * and forward() which composes operations (<ember/ops.h>). Training, streaming inference, packed
 * batches, memory planning and documentation follow from these.
 */
#ifndef EMBER_LAYER_H
#define EMBER_LAYER_H

#include <ember/tensor.h>

#ifdef __cplusplus
extern "C" {
#endif

/** What a component is; the registry finds it by (kind, name). */
typedef enum ember_kind {
    EMBER_SEQUENCE_MIXER, /**< [T, D] to [T, D], looking at earlier tokens of the same sequence */
    EMBER_CHANNEL_MIXER,  /**< [T, D] to [T, D], each token by itself; any of them can be an expert
                           */
    EMBER_NORM,           /**< [T, D] to [T, D] */
    EMBER_ROUTER,         /**< [T, D] to expert indices and weights [T, K] */
    EMBER_COMBINER,       /**< expert outputs and weights to [T, D] */
    EMBER_GATE,   /**< [T, D] to [T, E]: a logit for each expert, for routers to choose by */
    EMBER_BLOCK,  /**< norms and residual paths around mixers */
    EMBER_FAMILY, /**< a config.json's model_type becomes a model */
    EMBER_OPTIMIZER,
    EMBER_SCHEDULE,
    EMBER_LOSS,
    EMBER_SAMPLER,
    EMBER_DATA_SOURCE,
    EMBER_FORMAT,
    EMBER_KINDS
} ember_kind;

EMBER_API const char *
ember_kind_name(ember_kind kind); /**< "sequence_mixer", ...; "?" outside the list */

/** A part of a config that an option hands on, for ember_child(). Borrowed; any thread may read. */
typedef struct ember_config ember_config;

typedef enum ember_option_type {
    EMBER_OPTION_END = 0,
    EMBER_OPTION_BOOL,      /**< bool */
    EMBER_OPTION_SIZE,      /**< size_t */
    EMBER_OPTION_FLOAT,     /**< float */
    EMBER_OPTION_DOUBLE,    /**< double */
    EMBER_OPTION_ENUM,      /**< int: index into `choices` */
    EMBER_OPTION_STRING,    /**< const char *, borrowed from the config; default "" */
    EMBER_OPTION_COMPONENT, /**< const ember_config *: a component's config, or NULL */
    EMBER_OPTION_COMPONENTS /**< const ember_config *: a list of them, or NULL */
} ember_option_type;

/** One option of a component: parsed, checked against its range, printed and documented by this
 * line. */
typedef struct ember_option {
    const char *name; /**< NULL ends a table */
    ember_option_type type;
    size_t offset;    /**< of the field in the component's struct */
    double preset;    /**< the default, for numbers, bools and enums */
    double min, max;  /**< both allowed */
    const char *text; /**< enum: "first|second|third"; component: default config as JSON, or NULL
                         for none */
    int kind;         /**< component: the ember_kind it must have */
    const char *help;
} ember_option;

#define EMBER_OPT_BOOL(type, field, preset, help)                                                  \
    {                                                                                              \
#field, EMBER_OPTION_BOOL, offsetof(type, field), preset, 0, 1, 0, 0, help                 \
    }
#define EMBER_OPT_SIZE(type, field, preset, min, max, help)                                        \
    {                                                                                              \
#field, EMBER_OPTION_SIZE, offsetof(type, field), preset, min, max, 0, 0, help             \
    }
#define EMBER_OPT_FLOAT(type, field, preset, min, max, help)                                       \
    {                                                                                              \
#field, EMBER_OPTION_FLOAT, offsetof(type, field), preset, min, max, 0, 0, help            \
    }
#define EMBER_OPT_DOUBLE(type, field, preset, min, max, help)                                      \
    {                                                                                              \
#field, EMBER_OPTION_DOUBLE, offsetof(type, field), preset, min, max, 0, 0, help           \
    }
#define EMBER_OPT_ENUM(type, field, preset, choices, help)                                         \
    {                                                                                              \
#field, EMBER_OPTION_ENUM, offsetof(type, field), preset, 0, 0, choices, 0, help           \
    }
#define EMBER_OPT_STRING(type, field, help)                                                        \
    {                                                                                              \
#field, EMBER_OPTION_STRING, offsetof(type, field), 0, 0, 0, 0, 0, help                    \
    }
#define EMBER_OPT_COMPONENT(type, field, kind, preset, help)                                       \
    {                                                                                              \
#field, EMBER_OPTION_COMPONENT, offsetof(type, field), 0, 0, 0, preset, kind, help         \
    }
#define EMBER_OPT_COMPONENTS(type, field, kind, help)                                              \
    {                                                                                              \
#field, EMBER_OPTION_COMPONENTS, offsetof(type, field), 0, 0, 0, 0, kind, help             \
    }

/** How a parameter starts. Normal has the model's init_range as standard deviation. */
typedef enum ember_init {
    EMBER_INIT_ZEROS,
    EMBER_INIT_ONES,
    EMBER_INIT_NORMAL,
    EMBER_INIT_BUFFER /**< zeros, and no gradient: written by the trainer (a router's selection
                         bias) */
} ember_init;

/** What a parameter is for: optimizers, adapters and quantisers choose by it. */
typedef enum ember_role {
    EMBER_ROLE_OTHER,
    EMBER_ROLE_EMBEDDING,
    EMBER_ROLE_HEAD,
    EMBER_ROLE_ATTENTION,
    EMBER_ROLE_CONVOLUTION,
    EMBER_ROLE_FFN,
    EMBER_ROLE_EXPERT,
    EMBER_ROLE_ROUTER,
    EMBER_ROLE_NORM
} ember_role;

/** The most parameters that one layer declares; children have their own. */
#define EMBER_LAYER_PARAMS 12

typedef struct ember_layer ember_layer; /**< const once built: any thread may read it */
typedef struct ember_build ember_build; /**< what build() may ask and declare; for one thread */
typedef struct ember_flow ember_flow;   /**< a pass being recorded; for one thread at a time */

/** What a router returns, and a combiner takes. See <ember/ops.h>. */
typedef struct ember_routing {
    size_t n_experts;      /**< E; set before a router is asked */
    size_t k;              /**< choices of each token */
    ember_tensor *weights; /**< [T, K] f32 */
    ember_tensor *indices; /**< [T, K] i32, each in [0, E), none twice for a token; -1: the choice
                              goes nowhere (dropped, or fewer experts than K) */
    ember_tensor *plan;    /**< made by ember_dispatch(): rows sorted by expert */
    size_t max_rows; /**< how many choices of a whole batch can go somewhere; 0: all T*K of them */
} ember_routing;

/** Properties that a component cannot hold. Causal models refuse what declares one. */
enum {
    EMBER_NOT_CAUSAL = 1,  /**< a token's output depends on later tokens */
    EMBER_MIXES_BATCH = 2, /**< a sequence's output depends on the other sequences of the batch */
    /**
     * forward() is made of ember_linear() and elementwise operations alone: alike experts of this
     * type run as one grouped product (their parameters get a leading dimension of experts).
     */
    EMBER_GROUPABLE = 4,
    /** Reads or makes images of a given size: every sequence has a row for each of its pixels. */
    EMBER_IMAGES = 8
};

/** A component's descriptor: const, one per file. */
typedef struct ember_layer_type {
    const char *name; /**< as in configs: "short_conv" */
    ember_kind kind;
    unsigned flags; /**< EMBER_NOT_CAUSAL, EMBER_MIXES_BATCH, EMBER_GROUPABLE, EMBER_IMAGES */
    size_t size;    /**< of the component's struct, whose first member is an ember_layer */
    const ember_option *options;
    const char *help; /**< a line; and the source paper */
    ember_status (*build)(ember_layer *layer,
                          ember_build *build); /**< declares parameters and children */
    /** Layers, norms and blocks: y is a new tensor of x's shape. */
    ember_status (*forward)(const ember_layer *layer, ember_flow *flow, ember_tensor *x,
                            ember_tensor **y);
    /** Routers only. */
    ember_status (*route)(const ember_layer *layer, ember_flow *flow, ember_tensor *x,
                          ember_routing *routing);
    /** Combiners only: `rows` are the experts' outputs in the plan's order, x [T, D] what they and
     * the router were given. */
    ember_status (*combine)(const ember_layer *layer, ember_flow *flow, ember_tensor *x,
                            ember_tensor *rows, const ember_routing *routing, ember_tensor **y);
} ember_layer_type;

/** The head of every component's struct. Const while a model runs: a shared layer runs several
 * times a step. */
struct ember_layer {
    const ember_layer_type *type;
    const char *path;                        /**< in the model: "blocks.3.sequence" */
    ember_tensor *param[EMBER_LAYER_PARAMS]; /**< borrowed from the model */
};

/** The model's width D. */
EMBER_API size_t ember_build_width(const ember_build *build);
/** The grid of images that rows are the pixels of; both 0: rows are tokens. */
EMBER_API void ember_build_grid(const ember_build *build, size_t *rows, size_t *columns);
/** For blocks: those after this one see this width and this grid. */
EMBER_API void ember_build_becomes(ember_build *build, size_t width, size_t rows, size_t columns);
/** The index of the block being built, from 0. */
EMBER_API size_t ember_build_block(const ember_build *build);
/** Token ids that the model reads: below this; 0: it reads vectors. */
EMBER_API size_t ember_build_vocabulary(const ember_build *build);
/** Fails with EMBER_E_CONFIG within an expert of a mixture, whose rows are some of the batch's
 * tokens in another order: for layers that read tokens, positions, labels or sequences. */
EMBER_API EMBER_CHECKED ember_status ember_build_need_tokens(ember_build *build);
/** For routers: the number of experts to choose among. */
EMBER_API size_t ember_build_experts(const ember_build *build);
/** For routers: each token goes to k of them, in the mean. */
EMBER_API void ember_build_chooses(ember_build *build, size_t k);
/** After it, for routers whose routing has room for more of them: K. */
EMBER_API void ember_build_may_choose(ember_build *build, size_t most);
/** For combiners: K, the choices that a routing has room for. */
EMBER_API size_t ember_build_choices(const ember_build *build);

/**
 * Declares a parameter `path.name` of the layer being built; *param is its tensor (f32), whose data
 * may not exist yet (a plan needs none). `role` steers optimizers, adapters and quantisers.
 * @retval EMBER_E_SHAPE   more than EMBER_MAX_DIMS dimensions, a group's experts included.
 * @retval EMBER_E_CONFIG  a dimension is 0, or the model has become too large to be built.
 */
EMBER_API EMBER_CHECKED ember_status ember_param(ember_build *build, ember_tensor **param,
                                                 const char *name, ember_init init, ember_role role,
                                                 const size_t *dim, unsigned ndim);

/** Random numbers for a parameter's start: the same on every machine for the same seed. */
typedef struct em_rng ember_random;
EMBER_API double ember_random_uniform(ember_random *random); /**< [0, 1) */
EMBER_API double ember_random_normal(ember_random *random);  /**< mean 0, variance 1 */

/** How a parameter starts where ember_init does not say it. Start from {0}. */
typedef struct ember_filling {
    /** Writes the whole parameter (in a group of experts its first dimension counts them). NULL: as
     * its ember_init says. A buffer (EMBER_INIT_BUFFER) that a file lacks is filled by it, too. */
    void (*fill)(const void *context, ember_random *random, ember_tensor *param);
    const void *context; /**< has to live as long as the model: the layer's struct does */
    float scale;         /**< of a normal start's standard deviation; 0: 1 */
    bool no_decay;       /**< weight decay leaves it alone, though it is a matrix */
    float lr_factor;     /**< of the learning rate, where a recipe says nothing else; 0: 1 */
} ember_filling;

/** Says more about the start of a parameter that ember_param() has just declared. */
EMBER_API void ember_param_fill(ember_build *build, const ember_tensor *param,
                                const ember_filling *filling);

/**
 * Builds the child `path.name` of kind `kind` from its config (its "type" names it).
 * @retval EMBER_E_CONFIG  the config names an unknown component or a bad option; the message has
 * the path.
 */
EMBER_API EMBER_CHECKED ember_status ember_child(ember_build *build, const char *name,
                                                 ember_kind kind, const ember_config *config,
                                                 ember_layer **child);

/**
 * As ember_child, for `n` alike experts of an EMBER_GROUPABLE type: one layer whose parameters have
 * the experts as their first dimension. Run it between ember_experts_begin() and
 * ember_experts_end().
 */
EMBER_API EMBER_CHECKED ember_status ember_child_group(ember_build *build, const char *name,
                                                       const ember_config *config, size_t n,
                                                       ember_layer **child);
/** Whether the channel mixer that `config` names is EMBER_GROUPABLE. */
EMBER_API EMBER_CHECKED ember_status ember_config_groupable(ember_build *build,
                                                            const ember_config *config,
                                                            bool *groupable);

/** A list of configs: its length (0 for NULL), and its i-th member. */
EMBER_API size_t ember_config_count(const ember_config *list);
EMBER_API const ember_config *ember_config_at(const ember_config *list, size_t i);

/** Refuses a config from build(): EMBER_E_CONFIG with file and path of option `option` in front. */
EMBER_API EMBER_CHECKED ember_status ember_build_refuse(ember_build *build, const char *option,
                                                        const char *format, ...) EMBER_PRINTF(3, 4);

/** Runs a child. Records per-layer names for profiles and error messages. */
EMBER_API EMBER_CHECKED ember_status ember_forward(const ember_layer *layer, ember_flow *flow,
                                                   ember_tensor *x, ember_tensor **y);
EMBER_API EMBER_CHECKED ember_status ember_route(const ember_layer *layer, ember_flow *flow,
                                                 ember_tensor *x, ember_routing *routing);
EMBER_API EMBER_CHECKED ember_status ember_combine(const ember_layer *layer, ember_flow *flow,
                                                   ember_tensor *x, ember_tensor *rows,
                                                   const ember_routing *routing, ember_tensor **y);

#ifdef __cplusplus
}
#endif
#endif
