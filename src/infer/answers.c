#include "infer/answers.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

static ember_status other_job(const struct em_answers *a)
{
    return em_fail(EMBER_E_STATE,
                   "%s: holds answers of another job (other prompts, model, seed or settings); "
                   "remove it to begin anew",
                   a->partial);
}

static ember_status check_header(struct em_answers *a, const char *text, size_t n, uint64_t job,
                                 bool any_seed)
{
    char hash[32];
    json_t *header;
    snprintf(hash, sizeof hash, "%016" PRIx64, job);
    if (em_json_parse(a->partial, text, n, 0, &header) != EMBER_OK) return other_job(a);
    const char *theirs = json_string_value(json_object_get(header, "job")),
               *seed = json_string_value(json_object_get(header, "seed"));
    uint64_t value = 0;
    const bool same = theirs && seed && strcmp(theirs, hash) == 0 &&
                      sscanf(seed, "%" SCNu64, &value) == 1 && (any_seed || value == a->seed);
    json_decref(header);
    if (!same) return other_job(a);
    a->seed = value;
    return EMBER_OK;
}

// Counts the whole answers after the header; what a torn write left behind them is cut off.
static ember_status resume(struct em_answers *a, uint64_t job, bool any_seed)
{
    struct em_buf text = {0};
    ember_status status = em_read_file(a->partial, 0, &text);
    const char *line = text.data, *end = text.data + text.size, *stop;
    const char *header = status == EMBER_OK && text.size ? memchr(line, '\n', text.size) : NULL;
    if (header) {
        status = check_header(a, line, (size_t)(header - line), job, any_seed);
        for (line = header + 1; status == EMBER_OK && a->first < a->count; line = stop + 1) {
            json_t *answer;
            size_t index = SIZE_MAX;
            stop = memchr(line, '\n', (size_t)(end - line));
            if (!stop ||
                em_json_parse(a->partial, line, (size_t)(stop - line), 0, &answer) != EMBER_OK)
                break;
            const bool right =
                em_json_get_size(answer, a->partial, "index", 0, SIZE_MAX, &index) == EMBER_OK &&
                index == a->first;
            json_decref(answer);
            if (!right) break;
            a->first++;
        }
    }
    if (status == EMBER_OK)
        status = em_append_truncate(&a->log, header ? (uint64_t)(line - text.data) : 0);
    a->resumed = a->first;
    em_buf_deinit(&text);
    return status;
}

static ember_status begin(struct em_answers *a, uint64_t job)
{
    char header[128];
    const int n =
        snprintf(header, sizeof header,
                 "{\"job\": \"%016" PRIx64 "\", \"seed\": \"%" PRIu64 "\"}\n", job, a->seed);
    EM_TRY(em_append_write(&a->log, header, (size_t)n));
    // Answers behind a header that a power cut took would be taken for another job's.
    return em_append_sync(&a->log);
}

ember_status em_answers_open(const char *path, size_t count, uint64_t job, uint64_t seed,
                             bool any_seed, struct em_answers *out)
{
    struct em_answers a = {.log.fd = -1, .path = path, .count = count, .seed = seed};
    struct stat s;
    a.partial = em_asprintf("%s.partial", path);
    a.line = em_calloc(count ? count : 1, sizeof *a.line);
    ember_status status = a.partial && a.line ? EMBER_OK : EMBER_E_NOMEM;
    if (status == EMBER_OK) status = em_append_open(a.partial, &a.log);
    if (status == EMBER_OK) status = resume(&a, job, any_seed);
    if (status == EMBER_OK && em_io()->fstat(a.log.fd, &s) != 0)
        status = em_fail_errno(a.partial, "cannot stat");
    if (status == EMBER_OK && s.st_size == 0) status = begin(&a, job);
    if (status != EMBER_OK) {
        em_answers_close(&a);
        return status;
    }
    *out = a;
    return EMBER_OK;
}

ember_status em_answers_put(struct em_answers *a, size_t index, char *line)
{
    a->line[index] = line;
    for (; a->first < a->count && a->line[a->first]; a->first++) {
        const size_t n = strlen(a->line[a->first]);
        a->line[a->first][n] = '\n'; // one write for the line and its end
        const ember_status status = em_append_write(&a->log, a->line[a->first], n + 1);
        a->line[a->first][n] = 0;
        EM_TRY(status);
        em_free(a->line[a->first]);
        a->line[a->first] = NULL;
    }
    return EMBER_OK;
}

static ember_status copy_answers(const struct em_answers *a)
{
    struct em_map map;
    struct em_file file;
    EM_TRY(em_map_open(a->partial, &map));
    const unsigned char *header = memchr(map.data, '\n', map.size);
    ember_status status = header ? em_file_create(a->path, &file)
                                 : em_fail(EMBER_E_FORMAT, "%s: has no first line", a->partial);
    if (status == EMBER_OK) {
        status = em_file_write(&file, header + 1, map.size - (size_t)(header + 1 - map.data));
        if (status == EMBER_OK)
            status = em_file_commit(&file);
        else
            em_file_abort(&file);
    }
    em_map_close(&map);
    return status;
}

ember_status em_answers_finish(struct em_answers *a)
{
    EM_TRY(em_append_sync(&a->log));
    if (a->first < a->count) return EMBER_OK;
    EM_TRY(copy_answers(a));
    return em_io()->unlink(a->partial) == 0 ? EMBER_OK : em_fail_errno(a->partial, "cannot remove");
}

void em_answers_close(struct em_answers *a)
{
    for (size_t i = 0; a->line && i < a->count; i++)
        em_free(a->line[i]);
    em_free(a->line);
    em_append_close(&a->log);
    em_free(a->partial);
    *a = (struct em_answers){.log.fd = -1};
}
