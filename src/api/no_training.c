// In the place of the rooms that a build without training leaves out: every public name is there,
// and says so.
#include <ember/bench.h>
#include <ember/describe.h>
#include <ember/experts.h>
#include <ember/infer.h>
#include <ember/tokenizer.h>
#include <ember/train.h>

#include "base/fail.h"
#include "train/optimizer.h"

static ember_status refuse(const char *what)
{
    return em_fail(EMBER_E_UNSUPPORTED, "this build has no training: %s is not in it", what);
}

// No optimizers, no schedules.
ember_status em_train_register(void)
{
    return EMBER_OK;
}

ember_status ember_train(const ember_train_options *options, ember_train_result *result)
{
    (void)options;
    (void)result;
    return refuse("ember_train()");
}

void ember_train_result_deinit(ember_train_result *result)
{
    *result = (ember_train_result){0};
}

const char *ember_preset_at(size_t i)
{
    (void)i;
    return NULL;
}

ember_status ember_bench(const char *name, const ember_bench_options *options,
                         ember_bench_result **result)
{
    (void)name;
    (void)options;
    (void)result;
    return refuse("ember_bench()");
}

const char *ember_bench_json(const ember_bench_result *result)
{
    (void)result;
    return "";
}

const char *ember_bench_text(const ember_bench_result *result)
{
    (void)result;
    return "";
}

void ember_bench_free(ember_bench_result *result)
{
    (void)result; // there is none
}

ember_status ember_plan_describe(const char *subject, const ember_plan_options *options, bool json,
                                 char **text)
{
    (void)subject;
    (void)options;
    (void)json;
    (void)text;
    return refuse("ember_plan_describe()");
}

ember_status ember_eval(ember_model *model, const char *const *paths, size_t n,
                        const ember_eval_options *options, ember_evaluation *scores)
{
    (void)model;
    (void)paths;
    (void)n;
    (void)options;
    (void)scores;
    return refuse("ember_eval()");
}

ember_status ember_eval_tensors(ember_model *model, const char *const *paths, size_t n,
                                ember_tensor_evaluation *scores)
{
    (void)model;
    (void)paths;
    (void)n;
    (void)scores;
    return refuse("ember_eval_tensors()");
}

ember_status ember_experts_report(const char *model, const ember_experts_options *options,
                                  char **text)
{
    (void)model;
    (void)options;
    (void)text;
    return refuse("ember_experts_report()");
}

ember_status ember_tokenizer_train(const char *const *paths, size_t path_count,
                                   const ember_tokenizer_training *options,
                                   ember_tokenizer **tokenizer, ember_tokenizer_corpus *corpus)
{
    (void)paths;
    (void)path_count;
    (void)options;
    (void)tokenizer;
    (void)corpus;
    return refuse("ember_tokenizer_train()");
}
