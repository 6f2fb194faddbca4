/* What the adapter's files share. */
#ifndef CANDID_LLAMA_CPP_INTERNAL_H
#define CANDID_LLAMA_CPP_INTERNAL_H

#include <ggml-backend.h>
#include <ggml.h>

#include "candid_llama_cpp.h"

#define TRY(call)                                                                                                      \
    do {                                                                                                               \
        const candid_status try_status = (call);                                                                       \
        if (try_status != CANDID_OK) {                                                                                 \
            return try_status;                                                                                         \
        }                                                                                                              \
    } while (0)

#if defined(__GNUC__)
#define PRINTF_LIKE(a, b) __attribute__((format(printf, a, b)))
#else
#define PRINTF_LIKE(a, b)
#endif

/* A sequence of the host's memory that candid follows. */
struct track {
    llama_seq_id id;
    candid_sequence *sequence; /* NULL: nothing is followed here */
    candid_role role;
    candid_run run;
    int32_t n_prompt, n;  /* tokens of the prompt, and in the host's memory */
    int32_t capacity;     /* of the two arrays */
    llama_pos *positions; /* [n] */
    int32_t *cells;       /* [n] where keys lie in the host's cache */
    float *logits;        /* (n_vocab) of the last row, as far as a contrast needs them */
    bool has_logits;
};

/* Rows of a track in a ubatch. */
struct part {
    struct track *track;
    int32_t first_row, n;
};

/* Copies of masks that the backends of one pass may have. */
#define MAX_MASKS 16

/* A forward pass on its way. */
struct flight {
    bool on, begun, failed, decoded; /* decoded: the rows are in the host's memory */
    candid_status status;
    candid_error error;
    int32_t n_rows, n_out;
    int32_t *out_rows; /* [n_out] rows with logits; room for n_ubatch */
    candid_segment *segments;
    struct track **tracks; /* of the segments */
    int32_t n_segments;
    struct part *parts; /* tracks in this pass, also those on which nothing acts */
    int32_t n_parts;
    uint8_t *wants;            /* (CANDID_SITE_COUNT, n_layer + 1) */
    struct ggml_tensor *input; /* residual stream that enters layer 0 */
    int mlp_layer;             /* layers up to here have shown their MLP output */
    int64_t n_cells;           /* keys that attention rows have columns for */
    struct ggml_tensor *masks[MAX_MASKS];
    int n_masks;
    float *staged; /* rows that are not host memory or not all there */
    size_t staged_count;
};

struct candid_llama {
    candid_host host;
    char host_name[128], model_name[128], trained_with[64];
    const candid_config *config; /* borrowed */
    bool needs_rows;             /* of attention: flash attention is off */
    candid_plugin *plugin;
    candid_pass *pass;
    const struct llama_model *model;
    struct llama_context *ctx; /* NULL before candid_llama_start() */
    ggml_backend_sched_eval_callback user_eval;
    void *user_data;
    bool ours, theirs;              /* who wants the tensor asked for last */
    int32_t first_id, n_ids;        /* sequences that are candid's own */
    struct ggml_tensor *token_embd; /* the model's */
    bool learning;                  /* the pass of candid_llama_start() */
    float *learned;                 /* (n_embd) embedding of its token as the host computes it, then the flag: */
    bool has_learned;
    float score_scale;           /* of the host's softmax, or 0: there was none */
    bool saw[CANDID_SITE_COUNT]; /* with the expected shape */

    candid_task *task;
    candid_encoding *encoding; /* of its images, or NULL */
    int32_t n_branches;
    struct track *tracks; /* [1 + n_branches]: main, branches */
    struct flight flight;
    candid_status sampler_status;
    candid_error sampler_error;
};

candid_status refuse(candid_error *error, candid_status status, const char *format, ...) PRINTF_LIKE(3, 4);
void say(const candid_llama *l, candid_log_level level, const char *format, ...) PRINTF_LIKE(3, 4);

/* The host's callback; user is the candid_llama. */
bool candid_llama_eval(struct ggml_tensor *t, bool ask, void *user);

/* One ubatch of llama_decode() under candid's eyes; flight's segments, rows and wants are filled. */
candid_status fly(candid_llama *l, struct llama_batch batch, candid_error *error);

/* Rows of the model's token embeddings: out (n, n_embd). */
candid_status token_rows(const candid_llama *l, const llama_token *tokens, int32_t n, float *out, candid_error *error);

/* Keeps what is followed of a question; see candid_llama_detach(). */
void drop_tracks(candid_llama *l);
candid_status track_room(struct track *t, int32_t n, candid_error *error);
/* Rows of one track, or one row of each of several tracks. */
candid_status decode_rows(candid_llama *l, struct llama_batch batch, struct track *only, candid_error *error);

#endif
