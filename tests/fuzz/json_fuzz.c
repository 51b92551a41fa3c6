// JSON from anybody: no crash, no leak; what was accepted and printed reads back equal.
#include "base/json.h"
#include "fuzz/target.h"

static void target(const uint8_t *data, size_t size)
{
    for (int flags = 0; flags <= EM_JSON_COMMENTS; flags++) {
        json_t *value = NULL, *back = NULL;
        if (em_json_parse("some.json", (const char *)data, size, flags, &value) != EMBER_OK) {
            require_reason("some.json");
            continue;
        }
        for (int indent = 0; indent <= 2; indent += 2) {
            struct em_buf text;
            em_buf_init(&text, 0);
            if (em_json_print(value, indent, &text) != EMBER_OK) abort();
            if (em_json_parse("printed", text.data, text.size, 0, &back) != EMBER_OK) abort();
            if (!json_equal(value, back)) abort();
            json_decref(back);
            em_buf_deinit(&text);
        }
        json_decref(value);
    }
}
