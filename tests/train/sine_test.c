// The task of ncps' documentation: sin t and cos t, in 48 places, to become sin 2t. Adam at a
// constant rate of 0.01. One seed and the steps that it takes; EMBER_TEST_FULL: five, of 400 steps.
#include "support/full.h"
#include "train/run.h"

#include <ember/runtime.h>

enum { PLACES = 48 };

static const char *dir;

static const char *sine(void)
{
    static float in[PLACES][2], out[PLACES];
    static const size_t wide[] = {1, 1, PLACES, 2}, narrow[] = {1, 1, PLACES, 1};
    const double turn = 3 * acos(-1);
    for (size_t i = 0; i < PLACES; i++) {
        const double t = turn * (double)i / (PLACES - 1);
        in[i][0] = (float)sin(t);
        in[i][1] = (float)cos(t);
        out[i] = (float)sin(2 * t);
    }
    const struct em_st_output tensors[] = {
        {.name = "inputs", .shape = wide, .rank = 4, .dtype = EM_ST_F32, .data = in},
        {.name = "targets", .shape = narrow, .rank = 4, .dtype = EM_ST_F32, .data = out}};
    const char *path = test_path(dir, "sine.safetensors");
    CHECK_OK(em_safetensors_write(path, &(struct em_st_write){.tensors = tensors, .count = 2}));
    return path;
}

static void check_learns(const char *kind, const char *cell, double limit, unsigned usual_steps)
{
    const char *data = sine();
    for (unsigned seed = 0; seed < (em_test_full() ? 5 : 1); seed++) {
        char text[1200], name[32];
        snprintf(text, sizeof text,
                 "{\"model\": {\"model_type\": \"ember\", \"hidden_size\": 2, \"output_size\": 1, "
                 "\"output_matrix\": false, \"final_norm\": {\"type\": \"identity\"}, \"blocks\": "
                 "[{\"type\": \"plain\", \"sequence\": %s}]},\n\"data\": {\"tensors\": \"%s\"}, "
                 "\"seed\": %u, \"train\": {\"steps\": %u, \"lr\": 0.01, \"schedule\": "
                 "\"constant\", \"warmup\": 0, \"clip\": 1, \"weight_decay\": 0, \"beta2\": 0.999, "
                 "\"dtype\": \"f32\"}}",
                 cell, data, seed, em_test_full() ? 400 : usual_steps);
        snprintf(name, sizeof name, "%s-%u", kind, seed);
        const char *out = test_path(dir, name);
        run_ok(
            &(struct run){.recipe = run_write(dir, "sine.json", text), .out = out, .threads = 1});
        char *losses = run_losses(out);
        double least = INFINITY;
        for (char *at = losses; *at; at = strchr(at, '\n') + 1)
            least = fmin(least, strtod(at, NULL));
        em_free(losses);
        if (!(least < limit)) fail_msg("%s, seed %u: %g at best", cell, seed, least);
    }
}

static void an_ltc_with_its_wiring(void **state)
{
    (void)state;
    check_learns("ltc", "{\"type\": \"ltc\", \"wiring\": \"auto:16,1\", \"projection\": false}",
                 1e-3, 200);
}

static void a_cfc_of_32_units(void **state)
{
    (void)state;
    check_learns("cfc", "{\"type\": \"cfc\", \"units\": 32, \"output_size\": 1}", 1e-5, 130);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_ltc_with_its_wiring),
        cmocka_unit_test(a_cfc_of_32_units),
    };
    if (ember_start() != EMBER_OK) return 1;
    dir = test_directory();
    return cmocka_run_group_tests_name("train/sine", tests, run_quietly, NULL);
}
