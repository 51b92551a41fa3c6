// Configs: what is refused, and with which words; how many parameters the published sizes have;
// groups of blocks that share their weights.
#include <ember/runtime.h>
#include <string.h>

#include "base/alloc.h"
#include "models/model.h"
#include "support/check.h"

static ember_status create(const char *text, struct em_model **m)
{
    json_t *config;
    EM_TRY(em_json_parse("test.json", text, strlen(text), EM_JSON_COMMENTS, &config));
    const ember_status status = em_model_create(config, "test.json", NULL, m);
    json_decref(config);
    return status;
}

static void refused(const char *text, ember_status status, const char *message)
{
    struct em_model *m = NULL;
    CHECK_FAILS(create(text, &m), status, message);
    assert_null(m);
}

#define FORM(rest) "{\"model_type\": \"ember\", \"vocab_size\": 11, \"hidden_size\": 8, " rest "}"

static void a_refusal_names_file_path_value_and_range(void **state)
{
    (void)state;
    refused("[]", EMBER_E_CONFIG, "test.json: a config has to be an object");
    refused("{}", EMBER_E_CONFIG, "test.json: model_type is needed");
    refused("{\"model_type\": \"lfm\"}", EMBER_E_CONFIG, "did you mean \"lfm2\"");
    refused(FORM("\"blocks\": []"), EMBER_E_CONFIG,
            "blocks has to be a list of at least one block");
    refused(FORM("\"blocks\": [{\"type\": \"pre_norm\"}]"), EMBER_E_CONFIG,
            "blocks[0]: a block needs a sequence mixer, a channel mixer, or both");
    refused(FORM("\"blocks\": [{\"type\": \"pre_norm\", \"channel\": {\"type\": \"swiglu\", "
                 "\"hiden\": 3}}]"),
            EMBER_E_CONFIG, "blocks[0].channel.hiden is not known; did you mean \"hidden\"");
    refused(FORM("\"blocks\": [{\"type\": \"pre_norm\", \"channel\": {\"type\": \"swiglu\", "
                 "\"hidden\": -3}}]"),
            EMBER_E_CONFIG, "blocks[0].channel.hidden is -3; it has to be within 0 and 1048576");
    refused(FORM("\"blocks\": [{\"type\": \"pre_norm\", \"channel\": {\"type\": \"swiglu\", "
                 "\"hidden\": \"x\"}}]"),
            EMBER_E_CONFIG, "blocks[0].channel.hidden has to be an integer, not a string");
    refused(FORM("\"blocks\": [{\"type\": \"pre_norm\", \"channel\": {\"type\": \"moe\", "
                 "\"router\": {\"type\": \"sigmoid_topk\", \"k\": 9}}}]"),
            EMBER_E_CONFIG, "blocks[0].channel.router.k: 9 experts cannot be chosen among 8");
    refused(FORM("\"blocks\": [{\"type\": \"pre_norm\", \"sequence\": {\"type\": \"attention\", "
                 "\"heads\": 3}}]"),
            EMBER_E_CONFIG, "blocks[0].sequence.heads: 3 does not divide the width 8");
    refused(FORM("\"blocks\": [{\"type\": \"pre_norm\", \"sequence\": {\"type\": \"swiglu\"}}]"),
            EMBER_E_CONFIG, "blocks[0].sequence: no sequence_mixer is called \"swiglu\"");
    refused("{\"model_type\": \"lfm2_moe\"}", EMBER_E_CONFIG, "layer_types is needed");
    refused("{\"model_type\": \"lfm2\", \"layer_types\": [\"conv\", \"sliding_attention\"], "
            "\"num_hidden_layers\": 2}",
            EMBER_E_CONFIG, "layer_types[1] is \"sliding_attention\"");
    refused("{\"model_type\": \"lfm2\", \"hidden_size\": 1e9}", EMBER_E_CONFIG, "hidden_size");
    refused("{\"model_type\": \"llama\", \"rope_scaling\": {\"rope_type\": \"yarn\"}}",
            EMBER_E_UNSUPPORTED, "\"yarn\" is not known");
}

// One expert with renormalised weights has the weight 1 whatever the router says.
static void a_router_that_cannot_learn_is_refused(void **state)
{
    (void)state;
    struct em_model *m;
#define MOE(router)                                                                                \
    FORM("\"blocks\": [{\"type\": \"pre_norm\", \"channel\": {\"type\": \"moe\", \"router\": "     \
         "{" router "}}}]")
    refused(MOE("\"type\": \"sigmoid_topk\", \"k\": 1"), EMBER_E_CONFIG,
            "the router gets no gradient");
    refused(MOE("\"type\": \"softmax_topk\", \"k\": 1"), EMBER_E_CONFIG,
            "the router gets no gradient");
    refused(MOE("\"type\": \"softmax_topk\", \"scores\": \"all\", \"renormalise\": true, \"k\": 1"),
            EMBER_E_CONFIG, "the router gets no gradient");
    CHECK_OK(create(MOE("\"type\": \"sigmoid_topk\", \"k\": 1, \"renormalise\": false"), &m));
    em_model_close(m);
    CHECK_OK(create(MOE("\"type\": \"softmax_topk\", \"scores\": \"all\", \"k\": 1"), &m));
    em_model_close(m);
    CHECK_OK(create(MOE("\"type\": \"sigmoid_topk\", \"k\": 1, \"accept_single\": true"), &m));
    em_model_close(m);
#undef MOE
}

static void check_count(const char *text, size_t expected)
{
    struct em_model *m;
    size_t total, active;
    CHECK_OK(create(text, &m));
    em_model_count(m, &total, &active);
    if (total != expected) fail_msg("%s: %zu parameters, not %zu", text, total, expected);
    em_model_close(m);
}

#define LFM2(h, layers, heads, ff, attention)                                                      \
    "{\"model_type\": \"lfm2\", \"hidden_size\": " #h ", \"num_hidden_layers\": " #layers          \
    ", \"num_attention_heads\": " #heads ", \"num_key_value_heads\": 8, \"block_ff_dim\": " #ff    \
    ", \"full_attn_idxs\": [" attention "]}"

static void published_sizes_have_their_parameters(void **state)
{
    (void)state;
    check_count(LFM2(1024, 16, 16, 6656, "2,5,8,10,12,14"), 354483968);
    check_count(LFM2(1536, 16, 24, 10240, "2,5,8,10,12,14"), 742489344);
    check_count(LFM2(2048, 16, 32, 12288, "2,5,8,10,12,14"), 1170340608);
    check_count("{\"model_type\": \"lfm2\", \"hidden_size\": 2048, \"num_hidden_layers\": 30, "
                "\"num_attention_heads\": 32, "
                "\"num_key_value_heads\": 8, \"intermediate_size\": 10752, "
                "\"block_auto_adjust_ff_dim\": false, "
                "\"full_attn_idxs\": [2,5,9,13,17,21,24,27]}",
                2569272320);
    check_count("{\"model_type\": \"lfm2_moe\", \"num_hidden_layers\": 24, \"layer_types\": "
                "[\"conv\",\"conv\",\"full_attention\",\"conv\","
                "\"conv\",\"conv\",\"full_attention\",\"conv\",\"conv\",\"conv\",\"full_"
                "attention\",\"conv\",\"conv\",\"conv\","
                "\"full_attention\",\"conv\",\"conv\",\"conv\",\"full_attention\",\"conv\","
                "\"conv\",\"full_attention\",\"conv\",\"conv\"], "
                "\"vocab_size\": 65536}",
                8339930560);
}

static void an_expert_counts_by_its_share(void **state)
{
    (void)state;
    struct em_model *m;
    size_t total, active;
    CHECK_OK(create(FORM("\"blocks\": [{\"type\": \"pre_norm\", \"channel\": {\"type\": \"moe\", "
                         "\"experts\": 4, \"expert\": {\"type\": \"swiglu\", "
                         "\"hidden\": 6}, \"router\": {\"type\": \"sigmoid_topk\", \"k\": 2}}}]"),
                    &m));
    em_model_count(m, &total, &active);
    const size_t expert = 3 * 6 * 8, rest = 11 * 8 + 8 + 8 + 4 * 8;
    assert_int_equal(total, rest + 4 * expert);
    assert_int_equal(active, rest + 2 * expert);
    em_model_close(m);
}

static void a_shared_group_runs_several_times_with_one_set_of_weights(void **state)
{
    (void)state;
    struct em_model *shared, *repeated;
#define GROUP(share)                                                                               \
    FORM("\"blocks\": [{\"type\": \"pre_norm\", \"channel\": \"mlp\"}, {\"repeat\": 3, "           \
         "\"share\": " share ", \"blocks\": [{\"type\": \"pre_norm\", \"sequence\": "              \
                             "\"short_conv\"}, {\"type\": \"pre_norm\", \"channel\": \"mlp\"}]}]")
    CHECK_OK(create(GROUP("true"), &shared));
    CHECK_OK(create(GROUP("false"), &repeated));
    assert_int_equal(shared->depth, 7);
    assert_int_equal(repeated->depth, 7);
    assert_int_equal(shared->n_blocks, 3);
    assert_int_equal(repeated->n_blocks, 7);
    static const size_t order[] = {0, 1, 2, 1, 2, 1, 2};
    for (size_t i = 0; i < 7; i++)
        assert_int_equal(shared->order[i], order[i]);

    // Every pass through a shared convolution has a state of its own.
    struct em_program *p;
    struct em_model_outputs out;
    CHECK_OK(em_program_create(
        &(struct em_program_options){.backend = EM_CPU, .max_tokens = 4, .max_sequences = 1}, &p));
    CHECK_OK(em_model_record(shared, p, EM_HEAD_NONE, &out));
    assert_int_equal(em_program_layout(p)->count, 3);
    em_program_destroy(p);
    em_model_close(shared);
    em_model_close(repeated);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_refusal_names_file_path_value_and_range),
        cmocka_unit_test(a_router_that_cannot_learn_is_refused),
        cmocka_unit_test(published_sizes_have_their_parameters),
        cmocka_unit_test(an_expert_counts_by_its_share),
        cmocka_unit_test(a_shared_group_runs_several_times_with_one_set_of_weights),
    };
    if (ember_start() != EMBER_OK) return 1;
    return cmocka_run_group_tests_name("models/config", tests, NULL, NULL);
}
