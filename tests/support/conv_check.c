#include "support/conv_check.h"

void check_conv_rounds(const struct conv_form *form, uint64_t sizes)
{
    for (size_t round = 0; round < op_rounds(14); round++) {
        const size_t D = op_size(&sizes, 80), L = round % 5 == 3 ? 1 : op_size(&sizes, 9);
        struct op_case c = {.name = form->name,
                            .record = form->record,
                            .context =
                                form->n_contexts ? form->contexts[round % form->n_contexts] : NULL,
                            .rows = op_size(&sizes, 30),
                            .by_token = true,
                            .sequences = op_size(&sizes, 5),
                            .stateful = true,
                            .in = {{round & 1 ? OP_COLUMNS : OP_ROWS, {form->columns * D}, 1},
                                   {OP_PARAMETER, {D, L}, 2}}};
        if (round & 2)
            c.in[CONV_BIAS] = (struct op_input){.kind = OP_PARAMETER, .dim = {D}, .ndim = 1};
        c.in[CONV_X].constant = round % 7 == 4;
        c.in[CONV_W].constant = round % 7 == 5;
        c.in[CONV_BIAS].constant = round % 7 == 6;
        check_op(&c, round);
    }
}

static void run(struct em_program *p, const struct conv_by_hand *c, const size_t *offset,
                size_t sequences, const ember_tensor *y, const float *expected)
{
    const ember_batch batch = {
        .n_tokens = 3, .n_sequences = sequences, .offset = offset, .inputs = c->x};
    CHECK_OK(em_program_forward(p, &(struct em_run){.batch = &batch}));
    for (size_t t = 0; t < 3; t++)
        CHECK_NEAR(em_f32(y)[t], expected[t], 0, "token %zu of %zu sequences", t, sequences);
}

void check_conv_by_hand(const struct conv_by_hand *c)
{
    float w[] = {c->w[0], c->w[1]}, bias[] = {c->bias};
    for (int backend = 0; backend < EM_BACKENDS; backend++) {
        struct em_program *p;
        ember_tensor weight, b, *x, *out[OP_OUTPUTS] = {NULL};
        CHECK_OK(em_tensor_init(&weight, EMBER_F32, (size_t[]){1, 2}, 2, w));
        CHECK_OK(em_tensor_init(&b, EMBER_F32, (size_t[]){1}, 1, bias));
        CHECK_OK(em_program_create(&(struct em_program_options){.backend = (enum em_backend)backend,
                                                                .max_tokens = 3,
                                                                .max_sequences = 2},
                                   &p));
        CHECK_OK(ember_inputs(em_program_flow(p), c->columns, &x));
        CHECK_OK(c->record(
            em_program_flow(p), (ember_tensor *[]){x, &weight, &b},
            &(struct op_case){.context = c->context, .in = {[CONV_BIAS] = {OP_PARAMETER, {1}, 1}}},
            out));
        em_program_output(p, out[0]);
        CHECK_OK(em_program_allocate(p));
        run(p, c, (size_t[]){0, 3}, 1, out[0], c->whole);
        run(p, c, (size_t[]){0, c->first, 3}, 2, out[0], c->cut);
        em_program_destroy(p);
    }
}
