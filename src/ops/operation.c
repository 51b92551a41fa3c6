// Operations from outside (<ember/operation.h>): the public functions on a call, and the descriptor
// that the program knows made from theirs.
#include <ember/operation.h>

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "ops/program_priv.h"

_Static_assert(EMBER_OPERATION_OUTPUTS == EM_MAX_OUT && EMBER_OPERATION_SAVED == EM_MAX_SAVED &&
                   EMBER_OPERATION_CONSTANTS == EM_ATTR_BYTES &&
                   EMBER_SCRATCH_ALIGNMENT == EM_SCRATCH_ALIGNMENT &&
                   EMBER_READS_INPUT(3) == EM_READS_IN(3) &&
                   EMBER_READS_OUTPUT(3) == EM_READS_OUT(3) && EMBER_OPERATION_INPUTS <= 8,
               "the public numbers are those of ops/op.h");

static ember_status check(const ember_operation *o, const ember_use *use, unsigned n_out)
{
    if (!o || !o->name || !o->shape || !o->cost || !o->forward)
        return em_fail(EMBER_E_RANGE, "the operation %s needs a name, shape, cost and forward",
                       o && o->name ? o->name : "without a name");
    if (o->reference_backward && !o->backward)
        return em_fail(EMBER_E_RANGE, "%s: has reference_backward, but no backward", o->name);
    if (use->n_in > EMBER_OPERATION_INPUTS || n_out > EMBER_OPERATION_OUTPUTS ||
        use->constant_bytes > EMBER_OPERATION_CONSTANTS)
        return em_fail(EMBER_E_RANGE,
                       "%s: %u inputs, %u outputs and %zu bytes of constants; there may be %d, %d "
                       "and %d",
                       o->name, use->n_in, n_out, use->constant_bytes, EMBER_OPERATION_INPUTS,
                       EMBER_OPERATION_OUTPUTS, EMBER_OPERATION_CONSTANTS);
    return EMBER_OK;
}

// Lives as long as the program, like the call that has it.
static struct em_op *op_of(ember_flow *flow, const ember_operation *o)
{
    struct em_op *op = em_arena_alloc(&flow->program->arena, sizeof *op);
    if (!op) return NULL;
    *op = (struct em_op){
        .name = o->name,
        .shape = o->shape,
        .cost = o->cost,
        .backend = {[EM_CPU] = EM_PASSES(o->forward, o->backward),
                    [EM_REFERENCE] =
                        EM_PASSES(o->reference_forward ? o->reference_forward : o->forward,
                                  o->reference_backward ? o->reference_backward : o->backward)},
        .backward_reads = o->backward_reads,
    };
    return op;
}

ember_status ember_operate(ember_flow *flow, const ember_operation *operation, const ember_use *use,
                           ember_tensor **out, unsigned n_out)
{
    EM_TRY(check(operation, use, n_out));
    const struct em_op *op = op_of(flow, operation);
    struct em_call *c = op ? em_call_new(flow, op, use->n_in) : NULL;
    if (!c) return EMBER_E_NOMEM;
    for (unsigned i = 0; i < use->n_in; i++)
        c->in[i] = use->in[i];
    if (use->constant_bytes) memcpy(c->attr.bytes, use->constants, use->constant_bytes);
    if (use->state) EM_TRY(em_need_state(flow, c, use->state));
    EM_TRY(em_record(flow, c));
    bool whole = c->n_out == n_out;
    for (unsigned i = 0; i < c->n_out; i++)
        whole = whole && c->out[i];
    if (!whole)
        return em_fail(EMBER_E_SHAPE, "%s: the shape rule made %u outputs of %u", operation->name,
                       c->n_out, n_out);
    for (unsigned i = 0; i < n_out; i++)
        out[i] = c->out[i];
    return EMBER_OK;
}

const ember_tensor *ember_call_in(const ember_call *call, unsigned i)
{
    return i < call->n_in ? call->in[i] : NULL;
}

ember_tensor *ember_call_out(const ember_call *call, unsigned i)
{
    return i < call->n_out ? call->out[i] : NULL;
}

ember_tensor *ember_call_saved(const ember_call *call, unsigned i)
{
    return i < call->n_saved ? call->saved[i] : NULL;
}

const void *ember_call_constants(const ember_call *call)
{
    return call->attr.bytes;
}

ember_status ember_call_refuse(const ember_call *call, const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return em_fail(EMBER_E_SHAPE, "%s: %s", call->op->name, text);
}

ember_status ember_call_need_f32(const ember_call *call, unsigned i, const char *what, size_t last)
{
    return em_check_f32(call, ember_call_in(call, i), what, last);
}

static ember_status check_place(const ember_call *call, unsigned i, unsigned most,
                                const ember_tensor *like, unsigned ndim)
{
    if (i >= most) return ember_call_refuse(call, "tensor %u of at most %u", i, most);
    if (!like || !like->ndim) return ember_call_refuse(call, "no tensor to take the rows from");
    if (ndim >= EMBER_MAX_DIMS)
        return ember_call_refuse(call, "more than %d dimensions", EMBER_MAX_DIMS);
    return EMBER_OK;
}

ember_status ember_call_makes(ember_call *call, unsigned i, ember_dtype dtype,
                              const ember_tensor *like, size_t rows_per_row, const size_t *dim,
                              unsigned ndim)
{
    EM_TRY(check_place(call, i, EM_MAX_OUT, like, ndim));
    return em_out_rows(call, i, dtype, like, rows_per_row, dim, ndim);
}

ember_status ember_call_saves(ember_call *call, unsigned i, ember_dtype dtype,
                              const ember_tensor *like, size_t rows_per_row, const size_t *dim,
                              unsigned ndim)
{
    EM_TRY(check_place(call, i, EM_MAX_SAVED, like, ndim));
    return em_saved_rows(call, i, dtype, like, rows_per_row, dim, ndim);
}

void ember_call_needs_scratch(ember_call *call, size_t bytes)
{
    em_need_scratch(call, bytes);
}

unsigned ember_call_threads(const ember_call *call)
{
    return em_call_threads(call);
}

const ember_tensor *ember_call_out_gradient(const ember_call *call, unsigned i)
{
    const ember_tensor *out = ember_call_out(call, i);
    return out ? out->grad : NULL;
}

ember_tensor *ember_call_in_gradient(const ember_call *call, unsigned i)
{
    return i < call->n_in && em_wants(call, i) ? call->in[i]->grad : NULL;
}

void *ember_call_scratch(const ember_call *call, size_t bytes)
{
    return em_scratch_take(em_scratch_of(call), bytes);
}

void ember_call_parallel(const ember_call *call, size_t count, size_t grain, ember_task *task,
                         void *arg)
{
    if (count) em_parallel(call->exec->pool, count, grain, task, arg);
}

const ember_batch *ember_call_batch(const ember_call *call)
{
    return call->exec->batch;
}

const ember_slot *ember_call_slot_in(const ember_call *call, size_t sequence)
{
    return call->slot < 0 ? NULL : em_slot_in(call, sequence);
}

ember_slot *ember_call_slot_out(const ember_call *call, size_t sequence)
{
    return call->slot < 0 ? NULL : em_slot_out(call, sequence);
}
