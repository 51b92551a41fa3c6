// report.json: the figures of the page, for programs. A figure that was not measured is null.
#include <math.h>
#include <string.h>

#include "base/json.h"
#include "report/markup.h"
#include "report/report.h"

static json_t *number(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

static json_t *numbers(const double *v, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < n; i++)
        if (json_array_append_new(list, number(v[i]))) {
            json_decref(list);
            return NULL;
        }
    return list;
}

static json_t *rows(const double *v, size_t n, size_t columns)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < n; i++)
        if (json_array_append_new(list, numbers(v + i * columns, columns))) {
            json_decref(list);
            return NULL;
        }
    return list;
}

// Any bytes as a JSON string (cleaned, as on the page); null for NULL.
static json_t *text(const char *s)
{
    if (!s) return json_null();
    struct em_buf clean;
    em_buf_init(&clean, 0);
    json_t *value = NULL;
    if (em_text_clean(&clean, s, strlen(s)) == EMBER_OK)
        value = json_stringn(clean.size ? clean.data : "", clean.size);
    em_buf_deinit(&clean);
    return value;
}

// Names of facts come from configs and machines: cleaned like text.
static int set_named(json_t *object, const char *name, json_t *value)
{
    json_t *key = text(name ? name : "");
    const int failed = json_object_set_new(object, key ? json_string_value(key) : NULL, value);
    json_decref(key);
    return failed;
}

static json_t *facts(const struct em_report_fact *f, size_t n)
{
    json_t *object = json_object();
    for (size_t i = 0; object && i < n; i++)
        if (set_named(object, f[i].name, text(f[i].value))) {
            json_decref(object);
            return NULL;
        }
    return object;
}

// Appends `value` where everything before went well; NULLs mean out of memory.
static void append(json_t **list, json_t *value)
{
    if (json_array_append_new(*list, value) == 0) return; // it frees `value` where *list is NULL
    json_decref(*list);
    *list = NULL;
}

static json_t *curve(const struct em_report_curve *c)
{
    json_t *series = json_array();
    for (size_t i = 0; i < c->count; i++) {
        const struct em_report_series *s = &c->series[i];
        append(&series, json_pack("{s:o,s:b,s:o,s:o}", "name", text(s->name), "raw", s->faint, "x",
                                  numbers(s->x, s->count), "y", numbers(s->y, s->count)));
    }
    return json_pack("{s:o,s:o,s:o,s:o}", "title", text(c->title), "unit", text(c->unit), "x_unit",
                     text(c->x_unit ? c->x_unit : "step"), "series", series);
}

static json_t *nmi(const struct em_nmi *m)
{
    return json_pack("{s:o,s:o,s:o}", "value", number(m->value), "shuffled", number(m->shuffled),
                     "ceiling", number(m->ceiling));
}

static const char *const split_name[EM_SPLITS] = {
    [EM_SPLIT_POSITION] = "position", [EM_SPLIT_CLASS] = "kind", [EM_SPLIT_TOKEN] = "token"};

static json_t *named(const struct em_report_names *n)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n->count; i++)
        append(&list, text(n->name[i]));
    return list;
}

static json_t *splits(const struct em_report *r)
{
    json_t *object = json_object();
    for (size_t i = 0; object && i < EM_SPLITS; i++)
        if (r->split[i].count && json_object_set_new(object, split_name[i], named(&r->split[i]))) {
            json_decref(object);
            return NULL;
        }
    return object;
}

static json_t *indices(const size_t *v, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        append(&list, json_integer((json_int_t)v[i]));
    return list;
}

static json_t *chosen(const struct em_report *r, const struct em_report_layer *l)
{
    json_t *list = json_array();
    for (size_t d = 0; d < r->excerpt_count; d++) {
        json_t *experts = json_array();
        for (size_t t = 0; t < r->excerpts[d].count; t++)
            append(&experts, l->excerpt[d][t] < 0 ? json_null() : json_integer(l->excerpt[d][t]));
        append(&list, experts);
    }
    return list;
}

static bool set(json_t *object, const char *key, json_t *value)
{
    return json_object_set_new(object, key, value) == 0; // of a NULL value too
}

static bool set_maps(json_t *object, const struct em_report *r, const struct em_report_layer *l)
{
    const size_t E = l->experts;
    const struct {
        const char *key;
        const double *v;
        size_t rows;
    } maps[] = {{"domain_share", l->domain_share, r->domain_count},
                {"position_share", l->split[EM_SPLIT_POSITION], r->split[EM_SPLIT_POSITION].count},
                {"kind_share", l->split[EM_SPLIT_CLASS], r->split[EM_SPLIT_CLASS].count},
                {"token_share", l->split[EM_SPLIT_TOKEN], r->split[EM_SPLIT_TOKEN].count},
                {"load", l->load, r->load_count},
                {"coactivation", l->coactivation, E},
                {"weight_cosine", l->weight_cosine, E},
                {"output_cka", l->output_cka, E}};
    for (size_t i = 0; i < sizeof maps / sizeof *maps; i++)
        if (maps[i].v && !set(object, maps[i].key, rows(maps[i].v, maps[i].rows, E))) return false;
    return (!l->share || set(object, "share", numbers(l->share, E))) &&
           (!l->coverage || set(object, "coverage", numbers(l->coverage, E))) &&
           (!l->saturation ||
            set(object, "saturation", numbers(l->saturation, r->checkpoint_count))) &&
           (!l->excerpt || set(object, "excerpts", chosen(r, l))) &&
           (!l->within || set(object, "within", text(l->within)));
}

static json_t *layer(const struct em_report *r, const struct em_report_layer *l)
{
    const struct em_expert_metrics *m = &l->metrics;
    const size_t named_dead = m->dead < EM_DEAD_NAMED ? m->dead : EM_DEAD_NAMED;
    json_t *object = json_pack(
        "{s:I,s:I,s:I,s:I,s:I,s:I,s:o,s:o,s:o,s:o,s:o,s:o,s:I,s:o,s:o,s:o,s:o,s:o}", "layer",
        (json_int_t)l->layer, "experts", (json_int_t)l->experts, "experts_per_token",
        (json_int_t)l->active, "tokens", (json_int_t)m->tokens, "slots", (json_int_t)m->slots,
        "dropped", (json_int_t)m->dropped, "max_violation", number(m->max_violation),
        "load_variation", number(m->load_variation), "load_entropy", number(m->load_entropy),
        "token_entropy", number(m->token_entropy), "marginal_entropy", number(m->marginal_entropy),
        "mutual_information", number(m->marginal_entropy - m->token_entropy), "dead",
        (json_int_t)m->dead, "dead_experts", indices(m->dead_expert, named_dead), "nmi_domain",
        nmi(&m->domain), "nmi_token", nmi(&m->token), "nmi_kind", nmi(&m->token_class),
        "nmi_position", nmi(&m->position));
    if (object && !set_maps(object, r, l)) {
        json_decref(object);
        return NULL;
    }
    return object;
}

static json_t *excerpt(const struct em_report_excerpt *x)
{
    json_t *pieces = json_array();
    for (size_t t = 0; t < x->count; t++)
        append(&pieces, text(x->piece[t]));
    return json_pack("{s:o,s:o}", "domain", text(x->domain), "tokens", pieces);
}

static json_t *domain(const struct em_report_domain *d)
{
    return json_pack("{s:o,s:I,s:I,s:o,s:o,s:o}", "domain", text(d->name), "bytes",
                     (json_int_t)d->bytes, "tokens", (json_int_t)d->tokens, "bpb", number(d->bpb),
                     "untrained_bpb", number(d->untrained_bpb), "xz_bpb", number(d->xz_bpb));
}

static json_t *build(const struct em_report *r)
{
    json_t *fact_lists = json_object();
    json_t *warnings = json_array(), *curves = json_array(), *layers = json_array();
    json_t *domains = json_array(), *samples = json_array(), *excerpts = json_array();
    json_t *checkpoints = json_array();
    for (size_t i = 0; i < r->facts_count && fact_lists; i++)
        if (set_named(fact_lists, r->facts[i].title, facts(r->facts[i].facts, r->facts[i].count))) {
            json_decref(fact_lists);
            fact_lists = NULL;
        }
    for (size_t i = 0; i < r->warning_count; i++)
        append(&warnings, text(r->warnings[i]));
    for (size_t i = 0; i < r->curve_count; i++)
        append(&curves, curve(&r->curves[i]));
    for (size_t i = 0; i < r->layer_count; i++)
        append(&layers, layer(r, &r->layers[i]));
    for (size_t i = 0; i < r->domain_count; i++)
        append(&domains, domain(&r->domains[i]));
    for (size_t i = 0; i < r->sample_count; i++)
        append(&samples, json_pack("{s:o,s:o,s:o}", "domain", text(r->samples[i].domain), "prompt",
                                   text(r->samples[i].prompt), "text", text(r->samples[i].text)));
    for (size_t i = 0; i < r->excerpt_count; i++)
        append(&excerpts, excerpt(&r->excerpts[i]));
    for (size_t i = 0; i < r->checkpoint_count; i++)
        append(&checkpoints, text(r->checkpoints[i]));
    // What is JSON stays JSON; other text is kept as a string.
    json_t *config = NULL;
    if (r->config && em_json_parse("config", r->config, strlen(r->config), EM_JSON_COMMENTS,
                                   &config) != EMBER_OK)
        config = text(r->config);
    return json_pack(
        "{s:i,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "format", 1, "title",
        text(r->title), "subtitle", text(r->subtitle), "version", text(r->version), "finished",
        r->finished > 0 ? json_real(r->finished) : json_null(), "facts", fact_lists, "warnings",
        warnings, "curves", curves, "load_steps", numbers(r->load_steps, r->load_count), "layers",
        layers, "rows", splits(r), "checkpoints", checkpoints, "excerpts", excerpts, "domains",
        domains, "samples", samples, "config", r->config ? config : json_null());
}

ember_status em_report_write_json(const struct em_report *r, const char *path)
{
    json_t *report = build(r);
    if (!report) return em_fail(EMBER_E_NOMEM, "%s: out of memory for the report's figures", path);
    const ember_status status = em_json_write(path, report, 1);
    json_decref(report);
    return status;
}
