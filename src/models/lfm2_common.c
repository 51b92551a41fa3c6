#include "models/lfm2_common.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"

json_t *em_lfm2_conv(struct em_reader *r, size_t default_width)
{
    return json_pack("{s:s, s:I, s:b}", "type", "short_conv", "width",
                     (json_int_t)em_read_size(r, "conv_L_cache", default_width, 1, 4096), "bias",
                     em_read_bool(r, "conv_bias", false));
}

json_t *em_lfm2_attention(struct em_reader *r, size_t heads, size_t kv_heads, size_t head_dim,
                          double norm_eps, bool bias)
{
    (void)r;
    return json_pack("{s:s, s:I, s:I, s:I, s:b, s:f, s:b}", "type", "attention", "heads",
                     (json_int_t)heads, "kv_heads", (json_int_t)kv_heads, "head_dim",
                     (json_int_t)head_dim, "qk_norm", 1, "norm_eps", norm_eps, "bias", bias);
}

json_t *em_lfm2_ffn(size_t hidden)
{
    return json_pack("{s:s, s:I}", "type", "swiglu", "hidden", (json_int_t)hidden);
}

json_t *em_lfm2_block(struct em_reader *r, const char *type, double norm_eps, json_t *sequence,
                      json_t *channel)
{
    json_t *block =
        json_pack("{s:s, s:{s:s, s:f}}", "type", type, "norm", "type", "rmsnorm", "eps", norm_eps);
    em_form_set(r, block, "sequence", sequence);
    em_form_set(r, block, "channel", channel);
    return block;
}

size_t em_lfm2_trust_width(const struct em_reader *r, const struct em_weights *weights,
                           size_t layer, size_t width)
{
    char name[64];
    if (!weights) return width;
    snprintf(name, sizeof name, "model.layers.%zu.feed_forward.w1.weight", layer);
    const struct em_st_tensor *w1 = em_weights_find(weights, name);
    if (!w1 || w1->rank != 2 || w1->shape[0] == width) return width;
    em_warn("%s: the config says feed-forward width %zu, %s has %zu: the file's is taken", r->where,
            width, name, w1->shape[0]);
    return w1->shape[0];
}
