// A program of somebody else's, linked with the shared library: loads a plug-in and forecasts a model
// of its components.
// Usage: host FILE.so RECIPE
#include <ember/describe.h>
#include <ember/plugin.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    char *text = NULL;
    if (argc != 3 || ember_plugin_load(argv[1]) != EMBER_OK ||
        ember_plan_describe(argv[2], NULL, false, &text) != EMBER_OK) {
        fprintf(stderr, "%s\n", ember_last_error());
        return 1;
    }
    fputs(text, stdout);
    ember_free(text);
    return 0;
}
