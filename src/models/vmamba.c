// VMamba, models of images: Liu et al. 2024, arXiv:2401.10166. Configs have the keywords of the
// original's VSSM; inputs are [B, T, C], T pixels row after row, and outputs [B, 1, classes].
#include <stdio.h>
#include <string.h>

#include "models/family.h"

enum { MAX_STAGES = 16, MAX_BLOCKS = 1024 };

struct shape {
    size_t depths[MAX_STAGES], dims[MAX_STAGES], stages, blocks;
    size_t rows, columns, channels, classes, patch, states, rank, conv;
    double ratio, mlp, drop_path;
    bool conv_bias, gate, stacked, norm;
    const char *embed, *merge, *activation;
};

static const char *const keys[] = {"model_type",
                                   "architectures",
                                   "dtype",
                                   "torch_dtype",
                                   "ember",
                                   "transformers_version",
                                   "patch_size",
                                   "in_chans",
                                   "num_classes",
                                   "depths",
                                   "dims",
                                   "ssm_d_state",
                                   "ssm_ratio",
                                   "ssm_dt_rank",
                                   "ssm_act_layer",
                                   "ssm_conv",
                                   "ssm_conv_bias",
                                   "ssm_drop_rate",
                                   "ssm_init",
                                   "forward_type",
                                   "mlp_ratio",
                                   "mlp_act_layer",
                                   "mlp_drop_rate",
                                   "gmlp",
                                   "patch_norm",
                                   "drop_path_rate",
                                   "norm_layer",
                                   "downsample_version",
                                   "imgsize",
                                   "patchembed_version",
                                   "use_checkpoint",
                                   "posembed",
                                   "channel_first",
                                   "initializer_range",
                                   NULL};

static ember_status refuse(struct em_reader *r, const char *key, const char *expected)
{
    char found[96];
    return em_fail(EMBER_E_CONFIG, "%s: %s has to be %s, not %s", r->where, key, expected,
                   em_json_text(json_object_get(r->config, key), found, sizeof found));
}

// A list of sizes, or what is there when the key is not.
static void read_sizes(struct em_reader *r, const char *key, size_t max, size_t *to, size_t *count,
                       size_t most)
{
    const json_t *list = json_object_get(r->config, key);
    if (r->status != EMBER_OK || !list) return;
    if (!json_is_array(list) || !json_array_size(list) || json_array_size(list) > most) {
        r->status = refuse(r, key, "a list of sizes");
        return;
    }
    *count = json_array_size(list);
    for (size_t i = 0; i < *count; i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_integer(v) || json_integer_value(v) < 1 ||
            (uint64_t)json_integer_value(v) > max) {
            r->status = refuse(r, key, "a list of sizes");
            return;
        }
        to[i] = (size_t)json_integer_value(v);
    }
}

static void read_stages(struct em_reader *r, struct shape *s)
{
    static const size_t depths[] = {2, 2, 9, 2};
    const json_t *dims = json_object_get(r->config, "dims");
    size_t count = 4, first = 96;
    s->stages = 4;
    memcpy(s->depths, depths, sizeof depths);
    read_sizes(r, "depths", MAX_BLOCKS, s->depths, &s->stages, MAX_STAGES);
    if (json_is_array(dims)) {
        read_sizes(r, "dims", 1 << 20, s->dims, &count, MAX_STAGES);
        if (r->status == EMBER_OK && count != s->stages)
            r->status = refuse(r, "dims", "as long as depths");
    } else {
        first = em_read_size(r, "dims", 96, 1, 1 << 16);
        for (size_t i = 0; i < s->stages; i++)
            s->dims[i] = first << (i < 4 ? i : 4); // more stages stay as wide
    }
    for (size_t i = 0; i < s->stages; i++)
        s->blocks += s->depths[i];
    if (r->status == EMBER_OK && s->blocks > MAX_BLOCKS)
        r->status = refuse(r, "depths", "1024 blocks at most");
}

static void read_image(struct em_reader *r, struct shape *s)
{
    size_t grid[2] = {224, 224}, count = 2;
    const json_t *size = json_object_get(r->config, "imgsize");
    if (json_is_array(size)) {
        read_sizes(r, "imgsize", 1 << 15, grid, &count, 2);
        if (r->status == EMBER_OK && count != 2)
            r->status = refuse(r, "imgsize", "a side, or [rows, columns]");
    } else {
        grid[0] = grid[1] = em_read_size(r, "imgsize", 224, 1, 1 << 15);
    }
    s->rows = grid[0];
    s->columns = grid[1];
}

static bool one_of(const char *name, const char *const *names)
{
    for (; *names; names++)
        if (strcmp(name, *names) == 0) return true;
    return false;
}

static void need_one_of(struct em_reader *r, const char *key, const char *value,
                        const char *const *names, const char *expected)
{
    if (r->status == EMBER_OK && !one_of(value, names)) r->status = refuse(r, key, expected);
}

// What the four-way scan is made of: v0 by itself, the others with endings.
static void read_forward_type(struct em_reader *r, struct shape *s,
                              const struct em_weights *weights)
{
    static const char *const types[] = {"v0",  "v0seq", "v01", "v02", "v03",
                                        "v04", "v05",   "v2",  "v3",  NULL};
    const char *type = em_read_string(r, "forward_type", "v2");
    char base[32];
    size_t n = strlen(type);
    s->gate = true;
    if (n >= sizeof base) n = sizeof base - 1;
    memcpy(base, type, n);
    base[n] = '\0';
    for (bool cut = true; cut;) {
        static const char *const endings[] = {"_no32", "_noz"};
        cut = false;
        for (size_t i = 0; i < 2; i++) {
            const size_t e = strlen(endings[i]);
            if (n <= e || strcmp(base + n - e, endings[i]) != 0) continue;
            base[n -= e] = '\0';
            if (i == 1) s->gate = false;
            cut = true;
        }
    }
    need_one_of(
        r, "forward_type", base, types,
        "\"v0\", or \"v01\" to \"v05\", \"v2\" or \"v3\" with \"_noz\" or \"_no32\" behind");
    s->stacked = strcmp(base, "v0") == 0 || strcmp(base, "v0seq") == 0 ||
                 (weights && em_weights_find(weights, "layers.0.blocks.0.op.x_proj_weight"));
}

// Keywords of the original that mean nothing here as long as they say this.
static void read_rest(struct em_reader *r)
{
    static const char *const norms[] = {"LN", "ln", "LN2D", "ln2d", NULL}, *const silu[] = {"silu",
                                                                                            NULL};
    need_one_of(r, "norm_layer", em_read_string(r, "norm_layer", "LN"), norms,
                "\"ln\" or \"ln2d\", which are one here");
    need_one_of(r, "ssm_act_layer", em_read_string(r, "ssm_act_layer", "silu"), silu, "\"silu\"");
    if (em_read_double(r, "ssm_drop_rate", 0, 0, 1) > 0 && r->status == EMBER_OK)
        r->status = refuse(r, "ssm_drop_rate", "0");
    if (em_read_double(r, "mlp_drop_rate", 0, 0, 1) > 0 && r->status == EMBER_OK)
        r->status = refuse(r, "mlp_drop_rate", "0");
    if (em_read_bool(r, "gmlp", false) && r->status == EMBER_OK)
        r->status = refuse(r, "gmlp", "false");
    if (em_read_bool(r, "posembed", false) && r->status == EMBER_OK)
        r->status = refuse(r, "posembed", "false");
}

static struct shape read_shape(struct em_reader *r, const struct em_weights *weights)
{
    static const char *const embeds[] = {"v1", "v2", NULL}, *const merges[] = {"v1", "v2", "v3",
                                                                               NULL};
    static const char *const activations[] = {"gelu", "silu", "relu", "sigmoid", NULL};
    struct shape s = {0};
    read_stages(r, &s);
    read_image(r, &s);
    s.channels = em_read_size(r, "in_chans", 3, 1, 1 << 16);
    s.classes = em_read_size(r, "num_classes", 1000, 1, 1 << 20);
    s.patch = em_read_size(r, "patch_size", 4, 1, 1 << 12);
    s.states = em_read_size(r, "ssm_d_state", 16, 1, 256);
    const json_t *rank = json_object_get(r->config, "ssm_dt_rank");
    if (!json_is_string(rank) || strcmp(json_string_value(rank), "auto") != 0)
        s.rank = em_read_size(r, "ssm_dt_rank", 0, 0, 1 << 16);
    s.conv = em_read_size(r, "ssm_conv", 3, 0, 31);
    if (s.conv == 0) s.conv = 1;
    s.conv_bias = em_read_bool(r, "ssm_conv_bias", true);
    s.ratio = em_read_double(r, "ssm_ratio", 2, 0, 64);
    s.mlp = em_read_double(r, "mlp_ratio", 4, 0, 64);
    s.drop_path = em_read_double(r, "drop_path_rate", 0.1, 0, 0.999);
    s.norm = em_read_bool(r, "patch_norm", true);
    s.embed = em_read_string(r, "patchembed_version", "v1");
    s.merge = em_read_string(r, "downsample_version", "v2");
    s.activation = em_read_string(r, "mlp_act_layer", "gelu");
    need_one_of(r, "patchembed_version", s.embed, embeds, "\"v1\" or \"v2\"");
    need_one_of(r, "downsample_version", s.merge, merges, "\"v1\", \"v2\" or \"v3\"");
    need_one_of(r, "mlp_act_layer", s.activation, activations,
                "\"gelu\", \"silu\", \"relu\" or \"sigmoid\"");
    read_forward_type(r, &s, weights);
    read_rest(r);
    if (r->status == EMBER_OK && s.ratio == 0 && s.mlp == 0)
        r->status = refuse(r, "mlp_ratio", "above 0 where ssm_ratio is 0");
    return s;
}

// Block `i` of all, of width D.
static json_t *block_of(struct em_reader *r, const struct shape *s, size_t i, size_t D)
{
    const double depth = s->blocks > 1 ? (double)i / (double)(s->blocks - 1) : 0;
    json_t *block = json_pack("{s:s, s:{s:s}, s:f}", "type", "pre_norm", "norm", "type",
                              "layernorm", "drop_path", s->drop_path * depth);
    if (s->ratio > 0)
        em_form_set(r, block, "sequence",
                    json_pack("{s:s, s:f, s:I, s:I, s:I, s:b, s:b, s:b}", "type", "ss2d", "ratio",
                              s->ratio, "states", (json_int_t)s->states, "rank",
                              (json_int_t)s->rank, "conv", (json_int_t)s->conv, "conv_bias",
                              (int)s->conv_bias, "gate", (int)s->gate, "stacked", (int)s->stacked));
    if (s->mlp > 0)
        em_form_set(r, block, "channel",
                    json_pack("{s:s, s:I, s:s, s:b}", "type", "mlp", "hidden",
                              (json_int_t)(s->mlp * (double)D), "activation", s->activation, "bias",
                              1));
    return block;
}

static ember_status translate(const json_t *config, const char *where,
                              const struct em_weights *weights, json_t **form)
{
    struct em_reader r = {config, where, EMBER_OK};
    const struct shape s = read_shape(&r, weights);
    if (r.status != EMBER_OK) return r.status;
    json_t *f = json_pack(
        "{s:s, s:I, s:I, s:b, s:b, s:s, s:b, s:{s:s}, s:f, s:[]}", "model_type", "ember",
        "hidden_size", (json_int_t)s.channels, "output_size", (json_int_t)s.classes, "causal", 0,
        "tie_word_embeddings", 0, "pool", "mean", "head_bias", 1, "final_norm", "type", "layernorm",
        "initializer_range", em_read_double(&r, "initializer_range", 0.02, 0, 100), "blocks");
    em_form_add_block(&r, f,
                      json_pack("{s:s, s:I, s:I, s:I, s:I, s:s, s:b}", "type", "patch_embed",
                                "rows", (json_int_t)s.rows, "columns", (json_int_t)s.columns,
                                "width", (json_int_t)s.dims[0], "patch", (json_int_t)s.patch,
                                "version", s.embed, "norm", (int)s.norm));
    for (size_t stage = 0, i = 0; stage < s.stages; stage++) {
        for (size_t j = 0; j < s.depths[stage]; j++)
            em_form_add_block(&r, f, block_of(&r, &s, i++, s.dims[stage]));
        if (stage + 1 < s.stages)
            em_form_add_block(&r, f,
                              json_pack("{s:s, s:I, s:s}", "type", "patch_merge", "width",
                                        (json_int_t)s.dims[stage + 1], "version", s.merge));
    }
    if (r.status != EMBER_OK) {
        json_decref(f);
        return r.status;
    }
    *form = f;
    return EMBER_OK;
}

// ---- names ----

struct rename {
    const char *ours, *theirs, *older;
};

// The part of a path behind its block: its beginning is replaced.
static const char *renamed(struct em_arena *arena, const char *before, const char *rest,
                           const struct rename *table, bool older, ember_status *status)
{
    for (; table->ours; table++) {
        const size_t n = strlen(table->ours);
        if (strncmp(rest, table->ours, n) != 0) continue;
        const char *name =
            em_arena_printf(arena, "%s%s%s", before,
                            older && table->older ? table->older : table->theirs, rest + n);
        if (!name) *status = EMBER_E_NOMEM;
        return name;
    }
    return NULL;
}

static const char *type_of(const json_t *block)
{
    const char *type = json_string_value(json_object_get(block, "type"));
    return type ? type : "";
}

static const char *name_of(struct em_arena *arena, const json_t *form,
                           const struct em_weights *weights, const char *path, ember_status *status)
{
    static const struct rename whole[] = {
        {"final_norm.", "classifier.norm.", "norm."}, {"head.", "classifier.head.", "head."}, {0}};
    static const struct rename embed[] = {{"conv.", "0.", "proj."},
                                          {"norm.", "2.", "norm."},
                                          {"conv2.", "5.", NULL},
                                          {"norm2.", "7.", NULL},
                                          {0}};
    static const struct rename merge[] = {{"norm.", "1.", "norm."},
                                          {"reduction.", "2.", "reduction."},
                                          {0}},
                               merge_conv[] = {{"conv.", "1.", NULL}, {"norm.", "3.", NULL}, {0}};
    static const struct rename stacked[] = {
        {"sequence.x_proj.weight", "op.x_proj_weight", "self_attention.x_proj_weight"},
        {"sequence.dt_projs.weight", "op.dt_projs_weight", "self_attention.dt_projs_weight"},
        {0}};
    static const struct rename block[] = {
        {"sequence_norm.", "norm.", "ln_1."}, {"sequence.", "op.", "self_attention."},
        {"channel_norm.", "norm2.", NULL},    {"channel.up.", "mlp.fc1.", NULL},
        {"channel.down.", "mlp.fc2.", NULL},  {0}};
    // The first published files have names of their own.
    const bool older = weights && em_weights_find(weights, "patch_embed.proj.weight");
    const json_t *blocks = json_object_get(form, "blocks");
    size_t index = 0, stage = 0, place = 0;
    int used = 0;
    char before[96];
    if (sscanf(path, "blocks.%zu.%n", &index, &used) != 1 || !used)
        return renamed(arena, "", path, whole, older, status);
    for (size_t i = 0; i < index; i++) {
        const char *type = type_of(json_array_get(blocks, i));
        if (strcmp(type, "patch_merge") == 0) {
            stage++;
            place = 0;
        } else if (strcmp(type, "pre_norm") == 0) {
            place++;
        }
    }
    const json_t *config = json_array_get(blocks, index);
    const char *type = type_of(config), *rest = path + used;
    if (strcmp(type, "patch_embed") == 0)
        return renamed(arena, "patch_embed.", rest, embed, older, status);
    if (strcmp(type, "patch_merge") == 0) {
        const char *version = json_string_value(json_object_get(config, "version"));
        snprintf(before, sizeof before, "layers.%zu.downsample.", stage);
        return renamed(arena, before, rest,
                       version && strcmp(version, "v1") == 0 ? merge : merge_conv, older, status);
    }
    snprintf(before, sizeof before, "layers.%zu.blocks.%zu.", stage, place);
    if (json_is_true(json_object_get(json_object_get(config, "sequence"), "stacked"))) {
        const char *name = renamed(arena, before, rest, stacked, older, status);
        if (name || *status != EMBER_OK) return name;
    }
    return renamed(arena, before, rest, block, older, status);
}

extern const struct em_family em_family_vmamba;
const struct em_family em_family_vmamba = {
    .name = "vmamba",
    .help = "VMamba: images through selective scans in four directions",
    .keys = keys,
    .translate = translate,
    .name_of = name_of,
};
