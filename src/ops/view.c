// Views of a flow's tensors: no work and no copy, and their gradients are views of the gradient.
#include <string.h>

#include "base/alloc.h"
#include "ops/program_priv.h"

static ember_status record_view(ember_flow *flow, const ember_tensor *x, const ember_tensor *shape,
                                ember_tensor **y)
{
    struct em_program *p = flow->program;
    ember_tensor *v = em_program_tensor(p);
    if (!v) return EMBER_E_NOMEM;
    struct em_tensor_info *info = v->info;
    *v = *shape;
    v->data = NULL;
    v->grad = NULL;
    v->name = NULL;
    *info = *x->info;
    v->info = info;
    info->keep = false;
    if (x->grad && !em_grad_for(p, v)) return EMBER_E_NOMEM;
    *y = v;
    return EMBER_OK;
}

ember_status ember_reshape(ember_flow *flow, ember_tensor *x, const size_t *dim, unsigned ndim,
                           ember_tensor **y)
{
    char shape[96];
    if (!x->info) return em_fail(EMBER_E_SHAPE, "reshape: only tensors of the flow");
    size_t rest = 1;
    bool fits = true;
    for (unsigned i = 0; i < ndim; i++)
        fits = fits && em_mul_size(rest, dim[i], &rest);
    // Rows stay rows; the rest of a row is cut anew. A row itself has to be contiguous.
    size_t width = 1;
    for (unsigned i = x->ndim; i-- > 1;) {
        if (x->dim[i] != 1 && x->stride[i] != width) width = 0;
        width *= x->dim[i];
    }
    if (!fits) return em_fail(EMBER_E_SHAPE, "reshape: the dimensions' product does not fit");
    if (ndim >= EMBER_MAX_DIMS || rest != width)
        return em_fail(EMBER_E_SHAPE, "reshape: %s has no rows of %zu elements",
                       em_shape_text(x, shape, sizeof shape), rest);
    ember_tensor v = *x;
    v.ndim = ndim + 1;
    size_t stride = 1;
    for (unsigned i = ndim; i-- > 0;) {
        v.dim[i + 1] = dim[i];
        v.stride[i + 1] = stride;
        stride *= dim[i];
    }
    v.stride[0] = x->stride[0];
    return record_view(flow, x, &v, y);
}

ember_status ember_columns(ember_flow *flow, ember_tensor *x, size_t begin, size_t end,
                           ember_tensor **y)
{
    char shape[96];
    if (!x->info || x->ndim != 2 || begin >= end || end > x->dim[1])
        return em_fail(EMBER_E_SHAPE, "columns: %s has no columns [%zu, %zu)",
                       em_shape_text(x, shape, sizeof shape), begin, end);
    ember_tensor v = *x;
    v.dim[1] = end - begin;
    EM_TRY(record_view(flow, x, &v, y));
    (*y)->info->root_offset += begin * sizeof(float);
    if ((*y)->grad) (*y)->grad->info->root_offset += begin * sizeof(float);
    return EMBER_OK;
}
