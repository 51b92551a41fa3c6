// Routers that a model must not have by accident: those that look at later tokens, and those that
// would never learn. Each is refused with its reason, and accepted where the config says that it
// knows.
#include <ember/runtime.h>
#include <stdio.h>

#include "models/model.h"
#include "support/check.h"

static ember_status make(const char *router, bool causal)
{
    char text[1024];
    struct em_model *m = NULL;
    snprintf(
        text, sizeof text,
        "{\"model_type\":\"ember\",\"causal\":%s,\"hidden_size\":8,\"vocab_size\":9,\"blocks\":"
        "[{\"type\":\"pre_norm\",\"channel\":{\"type\":\"moe\",\"experts\":4,\"router\":%s}}]}",
        causal ? "true" : "false", router);
    json_t *config = json_loads(text, 0, NULL);
    if (!config) fail_msg("no JSON: %s", text);
    const ember_status status = em_model_create(config, "test", NULL, &m);
    json_decref(config);
    em_model_close(m);
    return status;
}

static void what_looks_ahead_is_for_models_that_do(void **state)
{
    (void)state;
    static const struct {
        const char *router, *knowing, *why;
    } cases[] = {
        {"{\"type\":\"expert_choice\"}", "{\"type\":\"expert_choice\",\"accept_future\":true}",
         "looks at later tokens, so a causal model cannot have it: what it does with a whole text "
         "it "
         "cannot do while it generates"},
        {"{\"type\":\"sinkhorn\"}", "{\"type\":\"sinkhorn\",\"accept_future\":true}",
         "balances a token's choice against those of later ones"},
        {"{\"type\":\"switch\",\"capacity\":1.25,\"drop\":\"light\"}",
         "{\"type\":\"switch\",\"capacity\":1.25,\"drop\":\"light\",\"accept_future\":true}",
         "whether a token is dropped depends on the weights of later ones"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CHECK_FAILS(make(cases[i].router, true), EMBER_E_CONFIG, cases[i].why);
        CHECK_OK(make(cases[i].knowing, true));
        CHECK_OK(make(cases[i].router, false));
    }
    CHECK_OK(make("{\"type\":\"switch\",\"capacity\":1.25}", true)); // later tokens go first
}

static void what_cannot_learn_is_refused(void **state)
{
    (void)state;
    static const char *const single[] = {
        "{\"type\":\"softmax_topk\",\"k\":1}",
        "{\"type\":\"softmax_topk\",\"k\":1,\"scores\":\"all\",\"renormalise\":true}",
        "{\"type\":\"sigmoid_topk\",\"k\":1}",
        "{\"type\":\"noisy_topk\",\"k\":1}",
    };
    for (size_t i = 0; i < sizeof single / sizeof *single; i++)
        CHECK_FAILS(make(single[i], true), EMBER_E_CONFIG, "the router gets no gradient");
    CHECK_OK(make("{\"type\":\"softmax_topk\",\"k\":1,\"accept_single\":true}", true));
    CHECK_OK(make("{\"type\":\"softmax_topk\",\"k\":1,\"scores\":\"all\"}", true));
    CHECK_OK(make("{\"type\":\"switch\"}", true));
}

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *router, *why;
    } cases[] = {
        {"{\"type\":\"sigmoid_topk\",\"k\":5}", "5 experts cannot be chosen among 4"},
        {"{\"type\":\"softmax_topk\",\"groups\":3}", "4 experts do not make 3 equal groups"},
        {"{\"type\":\"softmax_topk\",\"groups\":2,\"keep_groups\":3}", "there are 2 groups"},
        {"{\"type\":\"softmax_topk\",\"k\":3,\"groups\":2}",
         "1 groups have 2 experts, 3 are chosen"},
        {"{\"type\":\"softmax_topk\",\"k_first\":5,\"k_steps\":9}",
         "5 experts cannot be chosen among 4"},
        {"{\"type\":\"expert_choice\",\"capacity\":4,\"accept_future\":true}",
         "every one of 4 experts would take all tokens"},
        {"{\"type\":\"hash\",\"vocabulary\":5}", "the model's tokens are below 9"},
        {"{\"type\":\"relu\",\"k\":5}", "5 experts cannot be used of 4"},
        {"{\"type\":\"softmax_topk\",\"gate\":{\"type\":\"hierarchical\",\"groups\":3}}",
         "4 experts do not make 3 equal groups"},
        {"{\"type\":\"softmax_topk\",\"gate\":{\"type\":\"positional\",\"features\":3}}", "even"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        CHECK_FAILS(make(cases[i].router, true), EMBER_E_CONFIG, cases[i].why);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_looks_ahead_is_for_models_that_do),
        cmocka_unit_test(what_cannot_learn_is_refused),
        cmocka_unit_test(what_does_not_fit_is_refused),
    };
    if (ember_start() != EMBER_OK) return 1;
    return cmocka_run_group_tests_name("nn/router_refusals", tests, NULL, NULL);
}
