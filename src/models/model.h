// A model: a config, the layers it makes, their parameters, and the names these have in files.
#ifndef EM_MODELS_MODEL_H
#define EM_MODELS_MODEL_H

#include "base/arena.h"
#include "base/json.h"
#include "base/threads.h"
#include "formats/weights.h"
#include "models/family.h"
#include "nn/build.h"
#include "ops/program.h"

// A tensor of the model's files: a parameter, or one expert's part of it.
struct em_file_tensor {
    const char *name;
    struct em_param *param;
    size_t offset; // first element within the parameter
    size_t count;
    size_t dim[EMBER_MAX_DIMS]; // as in the file
    unsigned ndim;
};

struct em_model {
    struct em_arena arena;
    const struct em_family *family;
    json_t *config; // as in config.json
    json_t *form; // the same model as a free block list, what layers are built from (layers borrow
                  // from it)
    const char *name; // for messages: the config's file

    size_t vocabulary;  // V; 0: the model reads `inputs`
    size_t width;       // D
    size_t input_size;  // of `inputs` models
    size_t output_size; // columns of the outputs
    size_t context;     // longest sequence that the config speaks of; 0: none
    float init_range;
    bool language_model;  // outputs are logits of the next token
    bool causal;          // a token's output does not depend on later ones
    bool pooled;          // one output for each sequence,
    ember_pool pool;      // of its rows
    ptrdiff_t frozen_row; // of the embedding, -1: none
    float embedding_dropout;

    struct em_params params;
    ember_tensor *embedding, *input, *head; // head is embedding when tied
    ember_tensor *head_bias;                // NULL: none
    ember_layer *final_norm;
    ember_layer **block; // distinct ones
    const json_t **block_config; // [n_blocks] what the form says of each
    size_t n_blocks;
    size_t *order; // which block runs at each depth
    size_t depth;

    struct em_file_tensor *file_tensor; // in the order of the parameters
    size_t n_file_tensors;
    bool bare_names; // without the family's prefix

    float *memory; // all parameters' data, one block
    size_t memory_bytes, n_values;
    struct em_packs *packs;
};

// Builds the layers from a config (config.json's content, any registered model_type) without any
// weights: tensors have no data. `name` is used in messages. `weights` may be NULL; families look
// at shapes in it.
ember_status em_model_create(const json_t *config, const char *name,
                             const struct em_weights *weights,
                             struct em_model **model) EMBER_CHECKED;
// Another one of the same config and name; what there is to note about those has been said.
ember_status em_model_create_alike(const struct em_model *like, const struct em_weights *weights,
                                   struct em_model **model) EMBER_CHECKED;
void em_model_close(struct em_model *m); // NULL is fine

// Memory for the parameters, all zero; and how much that is.
size_t em_model_bytes(const struct em_model *m);
ember_status em_model_allocate(struct em_model *m) EMBER_CHECKED;
// Random start: normal with the config's initializer_range, ones and zeros where the layers say so;
// the same at any number of threads. The pool may be NULL.
void em_model_init(struct em_model *m, uint64_t seed, struct em_pool *pool);
// Every tensor by its file name; a missing one, one of another shape, or one with values that are
// not finite (EMBER_E_NUMERIC) fails; unused ones are a line.
ember_status em_model_load(struct em_model *m, const struct em_weights *weights) EMBER_CHECKED;

// A model folder: config.json and its weights. create, allocate, load. Nothing of the folder is
// needed afterwards.
ember_status em_model_open(const char *path, struct em_model **model) EMBER_CHECKED;
ember_status em_model_open_in(const struct em_folder *folder,
                              struct em_model **model) EMBER_CHECKED;
// The config alone, from a folder or a config file.
ember_status em_model_read_config(const char *path, json_t **config) EMBER_CHECKED;

// config.json, completed with what other programs ask for, and model.safetensors (f32 or bf16;
// buffers always f32).
ember_status em_model_save_config(const struct em_model *m, const char *folder,
                                  enum em_st_dtype dtype) EMBER_CHECKED;
ember_status em_model_save_weights(const struct em_model *m, const char *path,
                                   enum em_st_dtype dtype) EMBER_CHECKED;

// Parameters in all, and those one token uses (k of E experts). Buffers count; a tied matrix
// once.
void em_model_count(const struct em_model *m, size_t *total, size_t *active);

// Fails where outputs are not the next token's logits.
ember_status em_model_need_language(const struct em_model *m) EMBER_CHECKED;

// Gives every parameter that is not frozen a gradient over `memory` (n_values floats, in the
// parameters' order). NULL: gradients without data, for a dry run.
ember_status em_model_attach_gradients(struct em_model *m, float *memory) EMBER_CHECKED;

// What the form says at a layer's path, "blocks.3.channel.router"; NULL: nothing, so that the layer
// has its default.
const json_t *em_model_config_at(const struct em_model *m, const char *path);

enum em_head {
    EM_HEAD_NONE,   // [T, D] after the last norm
    EM_HEAD_ALL,    // logits (or outputs) of every token [T, V]
    EM_HEAD_LAST,   // of each sequence's last token [S, V]
    EM_HEAD_VALUES, // the loss [1]: squared errors from the run's values, and their means [T]
    EM_HEAD_SEQUENCE_VALUES, // the same of one output a sequence, pooled or at its last place [S]
    EM_HEAD_LABELS, // of one output a sequence, pooled or at its last place: the loss [1], the
                    // cross-entropy [S] with the target of that place, and whether that is right
    EM_HEAD_PLACES, // of every place with a target: the loss [1], the cross-entropy [T], right [T]
    EM_HEAD_LOSS,   // the loss [1] (and the negative log-likelihoods [T]), never [T, V]
};
struct em_model_outputs {
    ember_tensor *hidden, *logits, *loss, *nll,
        *right; // NULL where the head makes none; all kept for reading
};
// Records the model's forward pass on the program.
ember_status em_model_record(const struct em_model *m, struct em_program *p, enum em_head head,
                             struct em_model_outputs *out) EMBER_CHECKED;

#endif
