// Continues a prompt with a model that is part of the program (model.S): no file is opened.
#include <ember/ember.h>
#include <stdio.h>

extern const char config[], config_end[], weights[], weights_end[];
extern const char tokenizer[], tokenizer_end[], roles[], roles_end[], generation[], generation_end[];

int main(int argc, char **argv)
{
    const ember_model_file files[] = {
        {"config.json", config, (size_t)(config_end - config)},
        {"model.safetensors", weights, (size_t)(weights_end - weights)},
        {"tokenizer.json", tokenizer, (size_t)(tokenizer_end - tokenizer)},
        {"tokenizer_config.json", roles, (size_t)(roles_end - roles)},
        {"generation_config.json", generation, (size_t)(generation_end - generation)},
    };
    ember_model *model;
    char *text;
    if (ember_model_open_memory(files, sizeof files / sizeof *files, NULL, &model) ||
        ember_generate_text(model, argc > 1 ? argv[1] : "Ember is ", 80, &text))
        return fprintf(stderr, "%s\n", ember_last_error()), 1;
    puts(text);
    ember_free(text);
    ember_model_close(model);
    return 0;
}
