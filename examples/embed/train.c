// Trains a model as recipe.json in this folder says, then continues a prompt with it.
#include <ember/ember.h>
#include <stdio.h>

int main(void)
{
    const ember_train_options job = {.recipe = "recipe.json", .out = "model"};
    ember_model *model;
    char *text;
    if (ember_train(&job, NULL) || ember_model_open("model", NULL, &model) ||
        ember_generate_text(model, "Ember is ", 80, &text))
        return fprintf(stderr, "%s\n", ember_last_error()), 1;
    puts(text);
    ember_free(text);
    ember_model_close(model);
}
