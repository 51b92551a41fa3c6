// The forward pass of a model, recorded on a program.
#include "models/model.h"

static ember_status run_block(const struct em_model *m, ember_flow *flow, size_t depth,
                              ember_tensor **x)
{
    EM_TRY(em_flow_region_begin(flow));
    const ember_status status = ember_forward(m->block[m->order[depth]], flow, *x, x);
    em_flow_region_end(flow);
    return status;
}

static ember_status record_head(const struct em_model *m, ember_flow *flow, enum em_head head,
                                ember_tensor *x, struct em_model_outputs *out)
{
    switch (head) {
    case EM_HEAD_NONE: out->hidden = x; return EMBER_OK;
    case EM_HEAD_LAST:
        if (!m->pooled) EM_TRY(ember_last_rows(flow, x, &x));
        break;
    case EM_HEAD_LOSS:
        if (m->language_model)
            return ember_cross_entropy(flow, x, m->head, m->head_bias, &out->loss, &out->nll);
        break;
    case EM_HEAD_PLACES:
    case EM_HEAD_LABELS:
        if (!m->head)
            return em_fail(EMBER_E_CONFIG, "%s: labels need a model with an output matrix",
                           m->name);
        if (head == EM_HEAD_LABELS && !m->pooled) EM_TRY(ember_last_rows(flow, x, &x));
        return ember_cross_entropy_right(flow, x, m->head, m->head_bias, &out->loss, &out->nll,
                                         &out->right);
    case EM_HEAD_SEQUENCE_VALUES:
        if (!m->pooled) EM_TRY(ember_last_rows(flow, x, &x));
        break;
    case EM_HEAD_VALUES:
    case EM_HEAD_ALL: break;
    }
    if (m->head) EM_TRY(ember_linear(flow, x, m->head, m->head_bias, NULL, &x));
    if (head == EM_HEAD_VALUES || head == EM_HEAD_SEQUENCE_VALUES)
        return ember_squared_error(flow, x, &out->loss, &out->nll);
    if (head == EM_HEAD_LOSS) return ember_mean_square(flow, x, &out->loss);
    out->logits = x;
    return EMBER_OK;
}

ember_status em_model_record(const struct em_model *m, struct em_program *p, enum em_head head,
                             struct em_model_outputs *out)
{
    ember_flow *flow = em_program_flow(p);
    const char *before;
    ember_tensor *x;
    *out = (struct em_model_outputs){0};
    em_flow_enter(flow, "embedding", &before);
    if (m->vocabulary)
        EM_TRY(ember_embedding(flow, m->embedding, m->frozen_row, &x));
    else
        EM_TRY(ember_inputs(flow, m->input_size, &x));
    if (m->input) EM_TRY(ember_linear(flow, x, m->input, NULL, NULL, &x));
    if (m->embedding_dropout > 0) EM_TRY(ember_dropout(flow, x, m->embedding_dropout, &x));
    em_flow_leave(flow, before);
    for (size_t depth = 0; depth < m->depth; depth++)
        EM_TRY(run_block(m, flow, depth, &x));
    EM_TRY(ember_forward(m->final_norm, flow, x, &x));
    if (m->pooled) EM_TRY(ember_sequence_pool(flow, x, m->pool, &x));
    em_flow_enter(flow, "head", &before);
    EM_TRY(record_head(m, flow, head, x, out));
    em_flow_leave(flow, before);
    ember_tensor *const outputs[] = {out->hidden, out->logits, out->loss, out->nll};
    for (size_t i = 0; i < sizeof outputs / sizeof *outputs; i++)
        if (outputs[i]) em_program_output(p, outputs[i]);
    if (out->loss) em_program_loss(p, out->loss);
    return EMBER_OK;
}
