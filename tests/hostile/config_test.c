// config.json of every family with a hostile meaning.
#include "hostile/hostile.h"
#include "models/model.h"

#define NAME "dir/config.json"

static ember_status open_config(const char *text, size_t size)
{
    json_t *config;
    EM_TRY(em_json_parse(NAME, text, size, EM_JSON_COMMENTS, &config));
    struct em_model *m;
    const ember_status status = em_model_create(config, NAME, NULL, &m);
    if (status == EMBER_OK) em_model_close(m);
    json_decref(config);
    return status;
}

static void refuse(const char *text, size_t size, const char *says)
{
    const struct hostile_watch w = hostile_begin(text, NAME, size);
    hostile_end(&w, open_config(text, size), says);
}

// The members of `change` in the place of the base's, or beside them; null takes one away.
static char *changed(const char *base, const char *change)
{
    char text[4096];
    json_t *a, *b, *value;
    const char *key;
    snprintf(text, sizeof text, "{%s}", change);
    CHECK_OK(em_json_parse("base", base, strlen(base), 0, &a));
    CHECK_OK(em_json_parse("change", text, strlen(text), 0, &b));
    json_object_foreach(b, key, value)
    {
        if (json_is_null(value))
            json_object_del(a, key);
        else
            json_object_set(a, key, value);
    }
    struct em_buf out;
    em_buf_init(&out, 0);
    CHECK_OK(em_json_print(a, 0, &out));
    char *result = strdup(out.data);
    em_buf_deinit(&out);
    json_decref(a);
    json_decref(b);
    return result;
}

static void refuse_changes(const char *base, const struct hostile_case *cases, size_t count)
{
    CHECK_OK(open_config(base, strlen(base)));
    for (size_t i = 0; i < count; i++) {
        char *text = changed(base, cases[i].text);
        refuse(text, strlen(text), cases[i].says);
        free(text);
    }
}

#define COUNT(table) (sizeof(table) / sizeof *(table))

static void lfm2(void **state)
{
    (void)state;
    static const char base[] =
        "{\"model_type\":\"lfm2\",\"vocab_size\":6,\"hidden_size\":4,\"num_hidden_layers\":2,"
        "\"layer_types\":[\"conv\",\"full_attention\"],\"num_attention_heads\":2,"
        "\"num_key_value_heads\":1,\"intermediate_size\":5,\"block_auto_adjust_ff_dim\":false}";
    static const struct hostile_case cases[] = {
        {"\"hidden_size\": 0", "hidden_size|from 1 to 1048576|found 0"},
        {"\"hidden_size\": -1", "hidden_size|from 1 to 1048576|found -1"},
        {"\"hidden_size\": 4398046511104", "hidden_size|from 1 to 1048576|found 4398046511104"},
        {"\"hidden_size\": 9223372036854775807", "hidden_size|found 9223372036854775807"},
        {"\"hidden_size\": \"256\"", "hidden_size|from 1 to 1048576|found \"256\""},
        {"\"hidden_size\": 2.5", "hidden_size|from 1 to 1048576|found 2.5"},
        {"\"hidden_size\": [4]", "hidden_size|from 1 to 1048576|found an array"},
        {"\"hidden_size\": {}", "hidden_size|from 1 to 1048576|found an object"},
        {"\"hidden_size\": true", "hidden_size|from 1 to 1048576|found true"},
        {"\"hidden_size\": 1e300", "hidden_size|from 1 to 1048576|found 1e+300"},
        {"\"hidden_size\": NaN", "hidden_size|from 1 to 1048576|found \"NaN\""},
        {"\"vocab_size\": 2147483648", "vocab_size|from 1 to 16777216|found 2147483648"},
        {"\"vocab_size\": 0", "vocab_size|from 1 to 16777216|found 0"},
        {"\"vocab_size\": -5", "vocab_size|from 1 to 16777216|found -5"},
        {"\"num_hidden_layers\": 1000000000", "num_hidden_layers|from 1 to 4096|found 1000000000"},
        {"\"num_hidden_layers\": 0", "num_hidden_layers|from 1 to 4096|found 0"},
        {"\"num_hidden_layers\": 4096", "layer_types|2|4096"},
        {"\"num_attention_heads\": 0", "num_attention_heads|from 1 to 4096|found 0"},
        {"\"num_attention_heads\": 8", "blocks[1].sequence.heads|8 does not divide the width 4"},
        {"\"num_attention_heads\": 4", "blocks[1].sequence.head_dim|1 cannot be rotated"},
        {"\"num_key_value_heads\": 3", "blocks[1].sequence.kv_heads|3 does not divide the 2 heads"},
        {"\"num_key_value_heads\": 0", "num_key_value_heads|from 1 to 4096|found 0"},
        {"\"head_dim\": 0", "head_dim|from 1 to 256|found 0"},
        {"\"head_dim\": 257", "head_dim|from 1 to 256|found 257"},
        {"\"head_dim\": 3", "head_dim|3 cannot be rotated in pairs"},
        {"\"intermediate_size\": 0", "intermediate_size|from 1 to 16777216|found 0"},
        {"\"intermediate_size\": 4398046511104", "intermediate_size|found 4398046511104"},
        {"\"block_ff_dim\": -3", "block_ff_dim|from 1 to 16777216|found -3"},
        {"\"block_auto_adjust_ff_dim\": 1", "block_auto_adjust_ff_dim|true or false|found 1"},
        {"\"block_auto_adjust_ff_dim\": true, \"block_multiple_of\": 0",
         "block_multiple_of|from 1 to 1048576|found 0"},
        {"\"block_auto_adjust_ff_dim\": true, \"block_ffn_dim_multiplier\": -1",
         "block_ffn_dim_multiplier|from 0 to 1e+06|found -1"},
        {"\"block_auto_adjust_ff_dim\": true, \"block_ffn_dim_multiplier\": 1e7",
         "block_ffn_dim_multiplier|from 0 to 1e+06|found 10000000"},
        {"\"block_auto_adjust_ff_dim\": true, \"block_ffn_dim_multiplier\": \"NaN\"",
         "block_ffn_dim_multiplier|from 0 to 1e+06|found \"NaN\""},
        {"\"norm_eps\": -1", "norm_eps|from 0 to 1|found -1"},
        {"\"norm_eps\": 2", "norm_eps|from 0 to 1|found 2"},
        {"\"norm_eps\": \"x\"", "norm_eps|from 0 to 1|found \"x\""},
        {"\"norm_eps\": NaN", "norm_eps|from 0 to 1|found \"NaN\""},
        {"\"conv_L_cache\": 0", "conv_L_cache|from 1 to 4096|found 0"},
        {"\"conv_L_cache\": 9223372036854775807", "conv_L_cache|from 1 to 4096|found 9223372"},
        {"\"conv_bias\": 1", "conv_bias|true or false|found 1"},
        {"\"conv_bias\": \"yes\"", "conv_bias|true or false|found \"yes\""},
        {"\"layer_types\": [\"conv\"]", "layer_types|2 layers|has 1"},
        {"\"layer_types\": [\"conv\", \"conv\", \"conv\"]", "layer_types|2 layers|has 3"},
        {"\"layer_types\": [\"conv\", 3]", "layer_types[1]|kind of layers|found 3"},
        {"\"layer_types\": [\"conv\", null]", "layer_types[1]|kind of layers|found null"},
        {"\"layer_types\": [\"conv\", \"mamba\"]",
         "layer_types[1]|\"mamba\"|conv or full_attention"},
        {"\"layer_types\": \"conv\"", "layer_types|list|found \"conv\""},
        {"\"layer_types\": {}", "layer_types|list|found an object"},
        {"\"layer_types\": null, \"full_attn_idxs\": [2]", "full_attn_idxs[0]|from 0 to 1|found 2"},
        {"\"layer_types\": null, \"full_attn_idxs\": [-1]",
         "full_attn_idxs[0]|from 0 to 1|found -1"},
        {"\"layer_types\": null, \"full_attn_idxs\": [0, \"1\"]", "full_attn_idxs[1]|found \"1\""},
        {"\"layer_types\": null, \"full_attn_idxs\": 1", "full_attn_idxs|list|found 1"},
        {"\"tie_word_embeddings\": \"no\"", "tie_word_embeddings|true or false|found \"no\""},
        {"\"pad_token_id\": 6", "pad_token_id|6|vocabulary of 6"},
        {"\"pad_token_id\": -7", "pad_token_id|-7|vocabulary of 6"},
        {"\"pad_token_id\": -9223372036854775808", "pad_token_id|-9223372036854775808|of 6"},
        {"\"pad_token_id\": \"0\"", "pad_token_id|\"0\"|vocabulary of 6"},
        {"\"rope_theta\": 0", "rope_theta|from 1 to 1e+12|found 0"},
        {"\"rope_theta\": 1e300", "rope_theta|from 1 to 1e+12|found 1e+300"},
        {"\"rope_theta\": Infinity", "rope_theta|from 1 to 1e+12|found \"Infinity\""},
        {"\"rope_parameters\": [1]", "rope_parameters|an object|found an array"},
        {"\"rope_parameters\": {\"rope_type\": \"yarn\"}", "rope_type|\"yarn\"|default, linear"},
        {"\"rope_parameters\": {\"rope_type\": 3}", "rope_type|a string|found 3"},
        {"\"rope_parameters\": {\"rope_theta\": \"x\"}", "rope_theta|from 1 to 1e+12|found \"x\""},
        {"\"rope_parameters\": {\"partial_rotary_factor\": 2}",
         "partial_rotary_factor|from 0 to 1|found 2"},
        {"\"rope_parameters\": {\"rope_type\": \"linear\", \"factor\": 0}", "factor|1e-06|found 0"},
        {"\"rope_parameters\": {\"rope_type\": \"llama3\", \"low_freq_factor\": 9}",
         "rope_low_factor|9|rope_high_factor, 4"},
        {"\"max_position_embeddings\": -1", "max_position_embeddings|to 1073741824|found -1"},
        {"\"max_position_embeddings\": 4398046511104",
         "max_position_embeddings|found 4398046511104"},
        {"\"initializer_range\": -1", "initializer_range|from 0 to 100|found -1"},
        {"\"model_type\": \"lfm9\"", "model_type|\"lfm9\"|did you mean \"lfm"},
        {"\"model_type\": 3", "model_type|found 3"},
        {"\"model_type\": \"\"", "model_type|lfm2_moe"},
        {"\"model_type\": \"lfm2\\u0000x\"", "model_type|NUL"},
        {"\"model_type\": null", "model_type|found nothing"},
    };
    refuse_changes(base, cases, COUNT(cases));
    hostile_report(70);
}

static void lfm2_moe(void **state)
{
    (void)state;
    static const char base[] =
        "{\"model_type\":\"lfm2_moe\",\"vocab_size\":6,\"hidden_size\":4,\"num_hidden_layers\":2,"
        "\"layer_types\":[\"conv\",\"full_attention\"],\"num_attention_heads\":2,"
        "\"num_key_value_heads\":1,\"intermediate_size\":5,\"num_dense_layers\":1,"
        "\"num_experts\":2,\"num_experts_per_tok\":1,\"moe_intermediate_size\":3}";
    static const struct hostile_case cases[] = {
        {"\"num_experts\": 0", "num_experts|from 1 to 4096|found 0"},
        {"\"num_experts\": 1000000000", "num_experts|from 1 to 4096|found 1000000000"},
        {"\"num_experts\": \"2\"", "num_experts|from 1 to 4096|found \"2\""},
        {"\"num_experts_per_tok\": 0", "num_experts_per_tok|from 1 to 256|found 0"},
        {"\"num_experts_per_tok\": 3", "blocks[1].channel.router.k|3 experts|among 2"},
        {"\"num_experts_per_tok\": 257", "num_experts_per_tok|from 1 to 256|found 257"},
        {"\"moe_intermediate_size\": 0", "moe_intermediate_size|from 1 to 1048576|found 0"},
        {"\"moe_intermediate_size\": 4398046511104", "moe_intermediate_size|found 4398046511104"},
        {"\"num_dense_layers\": -1", "num_dense_layers|from 0 to 4096|found -1"},
        {"\"num_dense_layers\": 5000", "num_dense_layers|from 0 to 4096|found 5000"},
        {"\"use_expert_bias\": 1", "use_expert_bias|true or false|found 1"},
        {"\"norm_topk_prob\": \"no\"", "norm_topk_prob|true or false|found \"no\""},
        {"\"routed_scaling_factor\": 0", "routed_scaling_factor|1e-06|1000|found 0"},
        {"\"routed_scaling_factor\": 1e10", "routed_scaling_factor|1e-06|1000|found 10000000000"},
        {"\"router_aux_loss_coef\": -1", "router_aux_loss_coef|from 0 to 100|found -1"},
        {"\"router_z_loss_coef\": 101", "router_z_loss_coef|from 0 to 100|found 101"},
        {"\"expert_bias_update_rate\": 2", "expert_bias_update_rate|from 0 to 1|found 2"},
        {"\"layer_types\": null", "layer_types|every layer"},
        {"\"layer_types\": 5", "layer_types|found 5"},
    };
    refuse_changes(base, cases, COUNT(cases));
    hostile_report(15);
}

static void lfm3_and_llama(void **state)
{
    (void)state;
    static const char lfm3[] =
        "{\"model_type\":\"lfm3\",\"vocab_size\":6,\"hidden_size\":4,\"num_hidden_layers\":2,"
        "\"layer_types\":[\"conv\",\"sliding_attention\"],\"num_attention_heads\":2,\"head_dim\":4,"
        "\"num_key_value_heads\":1,\"intermediate_size\":5,\"sliding_window\":3,\"pad_token_id\":"
        "0}";
    static const struct hostile_case lfm3_cases[] = {
        {"\"sliding_window\": 0", "sliding_window|at least 1|layer 1"},
        {"\"sliding_window\": -1", "sliding_window|to 1073741824|found -1"},
        {"\"sliding_window\": 4398046511104", "sliding_window|found 4398046511104"},
        {"\"rope_parameters\": {\"full_attention\": {}}",
         "rope_parameters.sliding_attention|object"},
        {"\"rope_parameters\": {\"sliding_attention\": {\"rope_theta\": 0}}",
         "rope_theta|from 1 to 1e+12|found 0"},
        {"\"use_sandwich_norm\": 1", "use_sandwich_norm|true or false|found 1"},
        {"\"use_attention_gate\": \"\"", "use_attention_gate|true or false|found \"\""},
        {"\"layer_types\": [\"conv\", \"conv2\"]", "layer_types[1]|\"conv2\"|sliding_attention"},
        {"\"layer_types\": [\"conv\"]", "layer_types|2 layers|has 1"},
        {"\"rms_norm_eps\": 7", "rms_norm_eps|from 0 to 1|found 7"},
        {"\"attention_bias\": 0", "attention_bias|true or false|found 0"},
    };
    static const char llama[] =
        "{\"model_type\":\"llama\",\"vocab_size\":6,\"hidden_size\":4,\"num_hidden_layers\":1,"
        "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"intermediate_size\":5}";
    static const struct hostile_case llama_cases[] = {
        {"\"hidden_act\": \"swishy\"", "hidden_act|\"swishy\"|silu"},
        {"\"hidden_act\": 3", "hidden_act|a string|found 3"},
        {"\"rms_norm_eps\": 2", "rms_norm_eps|from 0 to 1|found 2"},
        {"\"mlp_bias\": \"x\"", "mlp_bias|true or false|found \"x\""},
        {"\"attention_bias\": []", "attention_bias|true or false|found an array"},
        {"\"num_attention_heads\": 8", "blocks[0].sequence.heads|8 does not divide the width 4"},
        {"\"num_key_value_heads\": 5000", "num_key_value_heads|from 1 to 4096|found 5000"},
        {"\"rope_scaling\": {\"rope_type\": \"dynamic\", \"factor\": 2}", "rope_type|\"dynamic\""},
        {"\"rope_scaling\": {\"type\": \"linear\", \"factor\": -2}", "factor|found -2"},
        {"\"rope_scaling\": 8", "rope_scaling|an object|found 8"},
        {"\"head_dim\": 1", "head_dim|1 cannot be rotated"},
    };
    refuse_changes(lfm3, lfm3_cases, COUNT(lfm3_cases));
    refuse_changes(llama, llama_cases, COUNT(llama_cases));
    hostile_report(20);
}

static void free_block_lists(void **state)
{
    (void)state;
    static const char base[] =
        "{\"model_type\":\"ember\",\"hidden_size\":8,\"vocab_size\":6,\"blocks\":[{\"type\":"
        "\"pre_norm\",\"sequence\":\"short_conv\",\"channel\":\"swiglu\"}]}";
    static const struct hostile_case cases[] = {
        {"\"hidden_size\": 0", "config.json: hidden_size|0|1 and 1048576"},
        {"\"hidden_size\": -1", "config.json: hidden_size|-1|1 and 1048576"},
        {"\"hidden_size\": 4398046511104", "config.json: hidden_size|4398046511104|1 and 1048576"},
        {"\"hidden_size\": \"8\"", "config.json: hidden_size|an integer|\"8\""},
        {"\"hidden_size\": 8.5", "config.json: hidden_size|an integer|8.5"},
        {"\"hiden_size\": 8", "config.json: hiden_size|did you mean \"hidden_size\""},
        {"\"vocab_size\": 2147483648", "config.json: vocab_size|2147483648|0 and 16777216"},
        {"\"hidden_size\": 1048576, \"vocab_size\": 16777216",
         "more than 4398046511104 parameters"},
        {"\"input_size\": 3", "input_size|vocab_size 6"},
        {"\"frozen_row\": 1.5", "frozen_row|an integer|1.5"},
        {"\"frozen_row\": 6", "frozen_row|6|vocabulary of 6"},
        {"\"frozen_row\": -2", "config.json: frozen_row|-2|-1 and 16777216"},
        {"\"tie_word_embeddings\": 1", "config.json: tie_word_embeddings|true or false|1"},
        {"\"initializer_range\": 1e10", "config.json: initializer_range|0 and 100"},
        {"\"final_norm\": 3", "config.json: final_norm|norm|3"},
        {"\"final_norm\": {\"type\": \"rmsnorm\", \"eps\": 2}", "final_norm.eps|2|0 and 1"},
        {"\"final_norm\": {\"type\": \"rmsnorms\"}", "\"rmsnorms\"|did you mean \"rmsnorm\""},
        {"\"final_norm\": {}", "final_norm.type|norm"},
        {"\"blocks\": null", "blocks|list of at least one block"},
        {"\"blocks\": {}", "blocks|an object"},
        {"\"blocks\": []", "blocks|list of at least one block"},
        {"\"blocks\": [3]", "blocks[0]|block"},
        {"\"blocks\": [{}]", "blocks[0].type|block"},
        {"\"blocks\": [[[[]]]]", "blocks[0]"},
        {"\"blocks\": [{\"type\": \"pre_nrom\"}]",
         "blocks[0]|\"pre_nrom\"|did you mean \"pre_norm\""},
        {"\"blocks\": [{\"type\": 7}]", "blocks[0].type|7"},
        {"\"blocks\": [{\"repeat\": 0, \"blocks\": [\"pre_norm\"]}]",
         "blocks[0].repeat|from 1 to 4096|found 0"},
        {"\"blocks\": [{\"repeat\": 1000000000, \"blocks\": [\"pre_norm\"]}]",
         "blocks[0].repeat|from 1 to 4096|found 1000000000"},
        {"\"blocks\": [{\"repeat\": 9223372036854775807, \"blocks\": [\"pre_norm\"]}]",
         "blocks[0].repeat|from 1 to 4096"},
        {"\"blocks\": [{\"repet\": 2, \"blocks\": [\"pre_norm\"]}]",
         "blocks[0].repet|repeat, share"},
        {"\"blocks\": [{\"share\": 1, \"blocks\": [\"pre_norm\"]}]", "share|true or false|found 1"},
        {"\"blocks\": [{\"blocks\": 3}]", "blocks[0].blocks|list"},
        {"\"blocks\": [{\"repeat\": 4096, \"share\": true, \"blocks\": [{\"repeat\": 4096, "
         "\"share\": "
         "true, \"blocks\": [{\"type\": \"pre_norm\", \"sequence\": \"short_conv\", \"channel\": "
         "\"swiglu\"}]}]}]",
         "more than 4096 blocks deep"},
        {"\"blocks\": [{\"blocks\": [{\"blocks\": [{\"blocks\": [{\"blocks\": [{\"blocks\": "
         "[{\"blocks\": [{\"blocks\": [{\"blocks\": [{\"blocks\": []}]}]}]}]}]}]}]}]}]",
         "nest deeper than 8"},
        {"\"blocks\": [{\"type\": \"pre_norm\", \"sequence\": {\"type\": \"attention\", \"heads\": "
         "3}}]",
         "blocks[0].sequence.heads|3 does not divide the width 8"},
        {"\"blocks\": [{\"type\": \"pre_norm\", \"sequence\": {\"type\": \"attention\", "
         "\"window\": "
         "-1}}]",
         "blocks[0].sequence.window|-1|0 and 1073741824"},
        {"\"blocks\": [{\"type\": \"pre_norm\", \"sequence\": {\"type\": \"attention\", \"rope\": "
         "\"quarter\"}}]",
         "blocks[0].sequence.rope|\"quarter\"|none|half|interleaved"},
        {"\"blocks\": [{\"type\": \"pre_norm\", \"sequence\": {\"type\": \"attention\", \"rope\": "
         "\"none\\u0000\"}}]",
         "blocks[0].sequence.rope|none|half|interleaved"},
        {"\"blocks\": [{\"type\": \"pre_norm\", \"sequence\": [\"attention\"]}]",
         "blocks[0].sequence|sequence_mixer|a list"},
        {"\"blocks\": [{\"type\": \"pre_norm\", \"sequence\": \"swiglu\"}]",
         "blocks[0].sequence|\"swiglu\"|sequence_mixer"},
        {"\"blocks\": [{\"type\": \"pre_norm\", \"sequence\": {\"type\": \"short_conv\", "
         "\"width\": "
         "1e18}}]",
         "blocks[0].sequence.width"},
        {"\"blocks\": [{\"type\": \"pre_norm\", \"sequence\": \"short_conv\", \"channel\": "
         "{\"type\": "
         "\"moe\", \"experts\": 1000000000}}]",
         "blocks[0].channel.experts|1000000000|1 and 4096"},
        {"\"blocks\": [{\"type\": \"pre_norm\", \"sequence\": \"short_conv\", \"channel\": "
         "{\"type\": "
         "\"moe\", \"experts\": 2, \"router\": {\"type\": \"sigmoid_topk\", \"k\": 3}}}]",
         "blocks[0].channel.router.k|3 experts|among 2"},
        {"\"blocks\": [{\"type\": \"pre_norm\", \"sequence\": \"short_conv\", \"channel\": "
         "{\"type\": "
         "\"moe\", \"expert_list\": []}}]",
         "blocks[0].channel.expert_list|0|1 to 4096"},
        {"\"blocks\": [{\"type\": \"pre_norm\", \"sequence\": \"short_conv\", \"channel\": "
         "{\"type\": "
         "\"moe\", \"router\": \"sigmoid_topc\"}}]",
         "blocks[0].channel.router|\"sigmoid_topc\"|did you mean \"sigmoid_topk\""},
        {"\"blocks\": [{\"repeat\": 4000, \"blocks\": [{\"type\": \"pre_norm\", \"sequence\": "
         "\"short_conv\", \"channel\": {\"type\": \"moe\", \"experts\": 4096, \"router\": "
         "{\"type\": \"sigmoid_topk\", \"k\": 2}}}]}]",
         "tensors"},
    };
    refuse_changes(base, cases, COUNT(cases));
    hostile_report(40);
}

static void texts(void **state)
{
    (void)state;
    static const struct hostile_case cases[] = {
        {"", ":1:1:|end of file"},
        {"   \n ", ":2:2:|end of file"},
        {"[]", "an object|found an array"},
        {"3", "an object|found 3"},
        {"null", "an object|found null"},
        {"\"lfm2\"", "an object|found \"lfm2\""},
        {"{", ":1:2:|end of file"},
        {"{\"model_type\": \"lfm2\", \"model_type\": \"llama\"}",
         ":1:24:|duplicate|\"model_type\""},
        {"{\"vocab_size\": 1e999}", ":1:16:|overflow|1e999"},
        {"{\"vocab_size\": -1e999}", ":1:16:|overflow"},
        {"{\"vocab_size\": 9223372036854775808}", ":1:16:|too big integer|9223372036854775808"},
        {"{\"vocab_size\": 00}", ":1:16:|00"},
        {"{\"vocab_size\": 1.}", ":1:16:|1."},
        {"{\"vocab_size\": 0x10}", ":1:16:|0x10"},
        {"{\"vocab_size\": +1}", ":1:16:|+1"},
        {"{'a': 1}", ":1:2:|'"},
        {"{\"a\": 1} x", ":1:10:|end of file expected|x"},
        {"{\"a\": /* 1}", ":1:7:|comment"},
        {"{\"a\": \"\\ud800\"}", ":1:8:|surrogate"},
        {"{\"a\": \"\\udc00\\ud800\"}", ":1:8:|surrogate"},
        {"{\"a\": \"\\ud800x\"}", ":1:8:|surrogate"},
        {"{\"a\": \"\xff\"}", ":1:8:|0xff"},
        {"{\"a\": \"\xc0\x80\"}", ":1:8:|0xc0"},
        {"{\"a\": \"\xed\xa0\x80\"}", ":1:8:|0xed"},
        {"{\"a\": \"\xf4\x90\x80\x80\"}", ":1:8:|0xf4"},
        {"{\"a\": \"\x01\"}", ":1:8:|0x1"},
        {"{\"a\": \"x", ":1:7:|no end"},
        {"{\"a\": \"\\x\"}", ":1:8:|escape"},
        {"{\"\\u0000\": 1}", ":1:2:|NUL"},
        {"{\"a\": tru}", ":1:7:|tru"},
        {"{\"a\" 1}", ":1:6:|':' expected"},
        {"{\"a\": 1 \"b\": 2}", ":1:9:|'}' expected"},
        {"{,}", ":1:2:"},
        {"{\"a\": [1,,2]}", ":1:10:"},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        refuse(cases[i].text, strlen(cases[i].text), cases[i].says);
    refuse("{\"a\": \"b\0c\"}", 12, ":1:9:");
    refuse("\0\0\0\0", 4, ":1:1:|NUL");
    static const size_t depths[] = {65, 3000, 100000};
    for (size_t i = 0; i < COUNT(depths); i++) {
        char *lists = hostile_nested(depths[i], "[", "", "]"),
             *objects = hostile_nested(depths[i], "{\"blocks\":", "3", "}");
        refuse(lists, strlen(lists), ":1:65:|deeper than 64");
        refuse(objects, strlen(objects), "deeper than 64");
        lists[depths[i]] = 0; // and never closed
        refuse(lists, strlen(lists), "deeper than 64");
        free(lists);
        free(objects);
    }
    hostile_report(40);
}

// Work that grows with the product of two numbers of the file.
static void long_lists(void **state)
{
    (void)state;
    enum { MANY = 200000 };
    static const char head[] = "{\"model_type\":\"lfm2\",\"num_hidden_layers\":4096,"
                               "\"full_attn_idxs\":[",
                      unknown[] = "{\"model_type\":\"lfm2\",\"hidden_size\":0";
    char *text = malloc(MANY * 24 + 256);
    size_t n = strlen(head);
    memcpy(text, head, n);
    for (size_t i = 0; i < MANY; i++)
        n += (size_t)sprintf(text + n, "%s%d", i ? "," : "", 5);
    n += (size_t)sprintf(text + n, "]}");
    refuse(text, n, "full_attn_idxs|200000|4096");
    n = strlen(unknown);
    memcpy(text, unknown, n);
    for (size_t i = 0; i < MANY; i++)
        n += (size_t)sprintf(text + n, ",\"hidden_sizf%zu\":0", i);
    n += (size_t)sprintf(text + n, "}");
    refuse(text, n, "hidden_size|found 0");
    free(text);
    hostile_report(2);
}

// Almost as many tensors as a model may have, from a few lines: within the memory that they allow.
static void many_experts(void **state)
{
    (void)state;
    static const char format[] =
        "{\"model_type\":\"ember\",\"hidden_size\":1,\"vocab_size\":1,\"blocks\":[{\"repeat\":%d,"
        "\"blocks\":[{\"type\":\"pre_norm\",\"sequence\":{\"type\":\"short_conv\"},\"channel\":"
        "{\"type\":\"moe\",\"experts\":4096,\"expert\":{\"type\":\"swiglu\",\"hidden\":1}}}]}]}";
    char text[1024];
    const int n = snprintf(text, sizeof text, format, 20);
    const size_t before = em_alloc_live();
    em_alloc_peak_reset();
    CHECK_OK(open_config(text, (size_t)n));
    assert_true(em_alloc_peak() - before <= (size_t)64 << 20);
    snprintf(text, sizeof text, format, 30);
    refuse(text, (size_t)n, "more than 262144 tensors");
    hostile_report(1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lfm2),           cmocka_unit_test(lfm2_moe),
        cmocka_unit_test(lfm3_and_llama), cmocka_unit_test(free_block_lists),
        cmocka_unit_test(texts),          cmocka_unit_test(long_lists),
        cmocka_unit_test(many_experts),
    };
    return cmocka_run_group_tests(tests, hostile_setup, NULL);
}
