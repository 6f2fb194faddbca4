/*
 * candid for hosts: candid's methods inside somebody else's runtime.
 *
 * The host keeps its model, its memory and its loop. It says what the model is and where it can be reached
 * (candid_host), and shows its tensors as they pass; candid measures and edits them in place. The methods and the
 * arithmetic are those of candid's own runtime.
 *
 *   candid_plugin     a configuration for one model in one host          candid_plugin_create
 *   candid_task       one question: its rows (branches) and sight        candid_task_create
 *   candid_sequence   one prompt with what is generated after it         candid_sequence_create
 *   candid_pass       one forward pass on its way through the layers     candid_pass_create
 *   candid_search     OPERA's choice of tokens                           candid_search_create
 *
 * A forward pass of the host, with x the residual stream:
 *
 *   candid_pass_begin(pass, segments, n)            which rows belong to which sequence
 *   for each layer l
 *       candid_pass_at(pass, CANDID_SITE_BLOCK_INPUT, l, x)
 *       scores = q kT        candid_pass_at(pass, CANDID_SITE_ATTENTION_SCORES, l, scores)
 *       probs = softmax      candid_pass_at(pass, CANDID_SITE_ATTENTION_PROBS, l, probs)
 *       heads = probs v      candid_pass_at(pass, CANDID_SITE_HEAD_OUTPUT, l, heads)
 *       x += Wo heads
 *       mlp = MLP(x)         candid_pass_at(pass, CANDID_SITE_MLP_OUTPUT, l, mlp)
 *       x += mlp             candid_pass_at(pass, CANDID_SITE_BLOCK_OUTPUT, l, x)
 *   n = norm(x)              candid_pass_at(pass, CANDID_SITE_FINAL_NORM, n_layer, n)
 *   logits = Whead n         candid_pass_logits(pass, logits, early)
 *   candid_pass_end(pass)
 *
 * Only sites that candid_sequence_wants() names for a row have to be shown; what is not wanted may be. Sites come in
 * this order, layers ascending.
 *
 * Conventions are those of candid.h: statuses and sentences, opaque handles, struct_size first. Elements of an array of
 * structs lie struct_size of its first element apart. Whatever is shown is borrowed for the call. A host that calls in
 * the wrong order, with wrong shapes or with NaN gets a status, and what it showed is as it was or edited in part; a
 * pass that failed is over: begin again.
 *
 * Threads: a plugin never changes after it was created and may be used by any number of threads; tasks, sequences,
 * passes and searches belong to one thread at a time. Sequences of one pass may belong to different tasks.
 */
#ifndef CANDID_PLUGIN_H
#define CANDID_PLUGIN_H

#include "candid/candid.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Grows when functions or fields are added; what was there keeps its meaning and its place. */
#define CANDID_ABI_VERSION 1
CANDID_API uint32_t candid_abi_version(void);

/* ---- the host ---------------------------------------------------------------------------------- */

/* Places of a forward pass. Shapes of views: batch b, row r, key k, head h. */
typedef enum candid_site {
    CANDID_SITE_BLOCK_INPUT = 0,      /* (b, r, n_embd): residual stream as it enters a layer; read */
    CANDID_SITE_ATTENTION_SCORES = 1, /* (b, h, r, k): before softmax; scaled or not, masked or not */
    CANDID_SITE_ATTENTION_PROBS = 2,  /* (b, h, r, k): after softmax */
    CANDID_SITE_HEAD_OUTPUT = 3,      /* (b, r, n_head * head_dim): before the output projection */
    CANDID_SITE_MLP_OUTPUT = 4,       /* (b, r, n_embd): before it is added to the residual stream */
    CANDID_SITE_BLOCK_OUTPUT = 5,     /* (b, r, n_embd): residual stream as it leaves a layer */
    CANDID_SITE_FINAL_NORM = 6,       /* (b, r, n_embd): normalised final state; its layer is n_layer */
    CANDID_SITE_LOGITS = 7,           /* (b, r, n_vocab): shown with candid_pass_logits; its layer is n_layer */
    CANDID_SITE_COUNT = 8
} candid_site;

/* What a host can do: a set of bits. */
typedef enum candid_ability {
    CANDID_CAN_BLOCK_INPUT = 1 << 0, /* the first eight: 1 << site, that site can be shown (and changed, but here) */
    CANDID_CAN_ATTENTION_SCORES = 1 << 1,
    CANDID_CAN_ATTENTION_PROBS = 1 << 2,
    CANDID_CAN_HEAD_OUTPUT = 1 << 3,
    CANDID_CAN_MLP_OUTPUT = 1 << 4,
    CANDID_CAN_BLOCK_OUTPUT = 1 << 5,
    CANDID_CAN_FINAL_NORM = 1 << 6,
    CANDID_CAN_LOGITS = 1 << 7,
    CANDID_CAN_EARLY_LOGITS = 1 << 8,      /* give the logits of earlier layers' states */
    CANDID_CAN_POSITIONS = 1 << 9,         /* order image tokens and choose positions; rows see all keys of their own */
    CANDID_CAN_MASK = 1 << 10,             /* let chosen rows see later keys */
    CANDID_CAN_COMPANIONS = 1 << 11,       /* run another prompt before the one asked about, whole, without a cache */
    CANDID_CAN_BRANCHES = 1 << 12,         /* decode a second sequence with a cache of its own beside the first */
    CANDID_CAN_VISION_ATTENTION = 1 << 13, /* give the class token's attention in the image encoder */
    CANDID_CAN_PIXELS = 1 << 14,           /* encode an image whose preprocessed pixels were changed */
    CANDID_CAN_VISUAL_TOKENS = 1 << 15,    /* feed a selection of an image's visual tokens */
    CANDID_CAN_CANDIDATES = 1 << 16        /* run alternatives for a token and take tokens back: OPERA */
} candid_ability;

/* The host and its model. Start from candid_host_default(). Copied. */
typedef struct candid_host {
    size_t struct_size;
    const char *host;         /* for messages: "transformers 4.57.3" */
    const char *model;        /* name for tables of known models, such as general.name of a GGUF file; may be NULL */
    const char *trained_with; /* schemes the weights were made with ("cca"), or NULL */
    uint32_t abilities;       /* set of candid_ability */
    int32_t n_layer, n_head, n_head_kv, head_dim, n_embd, n_vocab; /* of the language model */
    int32_t n_vision_blocks; /* image-encoder blocks up to the one whose output is used; 0: no vision */
    float score_scale;       /* what shown scores are still multiplied with before softmax; 0 (default): nothing */
    int32_t n_threads;       /* for candid's own work; default 1 */
    candid_log_fn log;       /* may be NULL; callable from every thread that uses the plugin, as long as it lives */
    void *log_user_data;
} candid_host;

static inline candid_host candid_host_default(void) {
    candid_host host;
    memset(&host, 0, sizeof host);
    host.struct_size = sizeof host;
    host.n_threads = 1;
    return host;
}

/*
 * Which methods the host can run: JSON, an object by method of {"runs": true|false, "needs": ["attention.probs", …],
 * "why": "…"}; `why` says what is missing, or under which conditions an option is out of reach. Settings are those of
 * config, NULL: of every method the defaults. *out is owned by the caller: candid_string_free.
 */
CANDID_API candid_status candid_host_capabilities(const candid_host *host, const candid_config *config, char **out,
                                                  candid_error *error);

typedef struct candid_plugin candid_plugin;

/*
 * A method that is on in the configuration and that the host cannot run is a CANDID_ERROR_UNSUPPORTED which says why;
 * options of "decode" that are the host's own business (temperature, …) are one, too. config is borrowed, must outlive
 * the plugin and must not change meanwhile; NULL: no method. On success *out is owned by the caller.
 */
CANDID_API candid_status candid_plugin_create(const candid_host *host, const candid_config *config, candid_plugin **out,
                                              candid_error *error);
/* All that was made of the plugin must have been freed before. */
CANDID_API void candid_plugin_free(candid_plugin *plugin);

/* ---- tasks: one question ----------------------------------------------------------------------- */

typedef struct candid_task candid_task;

/* request: the user's text, without conversation template; n_images: of the request. */
CANDID_API candid_status candid_task_create(const candid_plugin *plugin, const char *request, size_t n_images,
                                            candid_task **out, candid_error *error);
CANDID_API void candid_task_free(candid_task *task);

/* What contrasts did so far and why others do nothing: JSON, see candid_result.interventions. Owned by the caller:
 * candid_string_free. */
CANDID_API candid_status candid_task_report(const candid_task *task, char **out, candid_error *error);

/* What to ask in place of the request (LQCD words leading questions neutrally); else the request. The task's. */
CANDID_API const char *candid_task_request(const candid_task *task);

/* Most blocks of the image encoder that methods look at. */
#define CANDID_MAX_TAPS 4

/* What the host has to prepare; filled by candid_task_needs. */
typedef struct candid_needs {
    size_t struct_size;                    /* set by the caller: sizeof(candid_needs) */
    int32_t n_branches;                    /* sequences beside the main one */
    int32_t n_taps, taps[CANDID_MAX_TAPS]; /* image-encoder blocks whose class-token attention is wanted */
    bool reorders;                         /* image tokens go in another order: candid_task_place */
    bool searches;                         /* tokens are chosen by a candid_search */
    int32_t n_beams, n_candidates;         /* of the search */
} candid_needs;

CANDID_API candid_status candid_task_needs(const candid_task *task, candid_needs *out, candid_error *error);

/* What a branch sees of the images. */
typedef enum candid_sight {
    CANDID_SIGHT_SAME = 0,  /* the main row's visual tokens */
    CANDID_SIGHT_NONE = 1,  /* the main row's prompt without the places of the images */
    CANDID_SIGHT_NOISE = 2, /* visual tokens of pixels with noise: candid_task_noise */
    CANDID_SIGHT_CHOSEN = 3 /* a few visual tokens: candid_task_choose */
} candid_sight;

/* A sequence that the main one is contrasted with. Strings are the task's. */
typedef struct candid_branch {
    size_t struct_size; /* set by the caller: sizeof(candid_branch) */
    const char *method; /* "vcd" */
    const char *name;   /* "noised image" */
    candid_sight sight;
    int32_t n_chosen;    /* CHOSEN: visual tokens of each image */
    int32_t block;       /* CHOSEN: block of the image encoder; 0 is the first */
    const char *request; /* text in place of the one asked, or NULL: that */
    const char *prefix;  /* text before it (and after the images), followed by a blank, or NULL */
    const char *system;  /* text in place of the conversation's before the first role, or NULL */
} candid_branch;

CANDID_API candid_status candid_task_branch(const candid_task *task, int32_t branch, candid_branch *out,
                                            candid_error *error);

/* Memory a view lies in. */
typedef enum candid_space {
    CANDID_SPACE_HOST = 0,
    CANDID_SPACE_CUDA = 1 /* refused (CANDID_ERROR_UNSUPPORTED) by a library built without CUDA */
} candid_space;

typedef enum candid_dtype { CANDID_F32 = 0, CANDID_F16 = 1, CANDID_BF16 = 2 } candid_dtype;

/* The host's tensor. Element (i, j, …) lies i * strides[0] + j * strides[1] + … elements behind data. */
typedef struct candid_view {
    size_t struct_size;
    void *data;
    candid_dtype dtype; /* candid computes in f32 and rounds to the nearest */
    candid_space space;
    void *stream;   /* CUDA: the stream that the tensor is computed on */
    int32_t device; /* CUDA: number of the device */
    int32_t n_dims; /* at most 4 */
    int64_t shape[4];
    int64_t strides[4]; /* in elements; must not make elements overlap */
} candid_view;

/* VCD: adds the branch's noise to the pixels of an image, (3, height, width) after normalisation, in place. image: its
 * number; view: number among the views of the image (LLaVA-NeXT's tiles), else 0. The same task and numbers give the
 * same noise, that of candid's own runtime. */
CANDID_API candid_status candid_task_noise(const candid_task *task, int32_t branch, int32_t image, int32_t view,
                                           const candid_view *pixels, candid_error *error);

/* DAMRO: the visual tokens of an image that the branch sees, in its order. q: (n_embd) of the class token, k: (tokens,
 * n_embd) with the class token first, both projected with their biases, before heads are split, in block
 * candid_branch.block. index: room for n_chosen; *n_index: how many there are. LLaVA-NeXT adds a newline vector behind
 * the chosen ones in place of the last: candid_task_encode does it. */
CANDID_API candid_status candid_task_choose(const candid_task *task, int32_t branch, const candid_view *q,
                                            const candid_view *k, int32_t *index, int32_t *n_index,
                                            candid_error *error);

/*
 * Where the tokens of an image with a token grid of grid_h x grid_w go: the i-th of them in the sequence is that of
 * cell cells[i] = y * grid_w + x and has position positions[i], counted from the image's first; what follows the image
 * goes on at n_positions. Without an order of its own: cells[i] = positions[i] = i. cells, positions: [grid_h *
 * grid_w].
 */
CANDID_API candid_status candid_task_place(const candid_task *task, int32_t grid_h, int32_t grid_w, int32_t *cells,
                                           int32_t *positions, int32_t *n_positions, candid_error *error);

/* ---- sequences --------------------------------------------------------------------------------- */

typedef enum candid_span_kind { CANDID_SPAN_TEXT = 0, CANDID_SPAN_IMAGE = 1 } candid_span_kind;

/* A part of a prompt. */
typedef struct candid_span {
    size_t struct_size;
    candid_span_kind kind;
    int32_t n_tokens;
    int32_t grid_h, grid_w; /* of an image's token grid; 0 where its tokens form none */
} candid_span;

/* Attention of the image encoder's class token in one block, of one image. */
typedef struct candid_tap {
    size_t struct_size;
    int32_t image, block;
    const candid_view *of_cls; /* (heads, patches): probabilities, patches in raster order */
} candid_tap;

typedef struct candid_sequence candid_sequence;

/* branch: -1 the main sequence. spans: the prompt as it is fed, images numbered in their order; taps: of every image
 * and block in candid_needs. Branches look at them only where decode.branch_edits is on. */
CANDID_API candid_status candid_sequence_create(candid_task *task, int32_t branch, const candid_span *spans,
                                                size_t n_spans, const candid_tap *taps, size_t n_taps,
                                                candid_sequence **out, candid_error *error);
CANDID_API void candid_sequence_free(candid_sequence *sequence);

/* Which prompt a row belongs to. Companions run first, whole, each in a pass of its own or both in one, which has ended
 * before the main prompt's begins; their rows and caches are of no further use. */
typedef enum candid_role {
    CANDID_ROLE_MAIN = 0,
    CANDID_ROLE_TEXT_ONLY = 1, /* the prompt without the images' tokens */
    CANDID_ROLE_PLAIN = 2,     /* the prompt as it is, which nothing edits */
    CANDID_ROLE_COUNT = 3
} candid_role;

/* How the sequence has to be run; filled by candid_sequence_run. */
typedef struct candid_run {
    size_t struct_size;    /* set by the caller: sizeof(candid_run) */
    bool acts;             /* something is measured or edited; else it need not be shown at all */
    bool whole_prompt;     /* the prompt's rows must go through in one pass; else in several, one after the other: rows
                            * are left out (a prefix out of a cache) only where wants() asks for nothing of them */
    uint32_t companions;   /* set of 1 << candid_role that must have run before */
    bool early_embeddings; /* candid_pass_logits wants logits of the embeddings, … */
    bool early_normed;     /* … of early states after the final norm, … */
    int32_t n_early;       /* … and this many in all, embeddings first, then the layers that wants() names for
                            * CANDID_SITE_LOGITS */
} candid_run;

CANDID_API candid_status candid_sequence_run(const candid_sequence *sequence, candid_run *out, candid_error *error);

/* Rows of a sequence. */
typedef enum candid_rows { CANDID_ROWS_PROMPT = 1, CANDID_ROWS_GENERATED = 2 } candid_rows;

/* layers[l] (n_layer + 1 bytes) becomes 1 where the site of that layer must be shown for such rows (a set of
 * candid_rows) of that role, else 0. For CANDID_SITE_LOGITS layers below n_layer are those whose early logits are
 * wanted. Returns the number of ones. What generated rows want may depend on the prompt: ask for them after its pass.
 */
CANDID_API int32_t candid_sequence_wants(const candid_sequence *sequence, candid_role role, candid_site site,
                                         uint32_t rows, uint8_t *layers);

/* The keys a row sees, by their place in the sequence: [0, n_keys) and [also_begin, also_end), empty where also_end is
 * 0. role: MAIN or PLAIN; of TEXT_ONLY it is always index + 1. */
typedef struct candid_reach {
    size_t struct_size; /* set by the caller: sizeof(candid_reach) */
    int32_t n_keys, also_begin, also_end;
} candid_reach;

CANDID_API candid_status candid_sequence_reach(const candid_sequence *sequence, candid_role role, int32_t index,
                                               candid_reach *out, candid_error *error);

/* What the methods did so far: JSON, see candid_result.interventions. Owned by the caller: candid_string_free. */
CANDID_API candid_status candid_sequence_report(const candid_sequence *sequence, char **out, candid_error *error);

/* ---- candid's own image encoder ------------------------------------------------------------------ */

/*
 * What candid makes of a task's images, for the main row and every branch: for hosts without an image encoder, or whose
 * encoder gives other features than the model was trained with. Such a host has CANDID_CAN_VISION_ATTENTION,
 * CANDID_CAN_PIXELS and CANDID_CAN_VISUAL_TOKENS.
 */
typedef struct candid_encoding candid_encoding;

/* context: of the same model, opened by candid; images: the task's, in order. Of params (may be NULL) preprocess and
 * should_cancel count. On success *out is owned by the caller and may outlive all of them. */
CANDID_API candid_status candid_task_encode(const candid_task *task, candid_context *context,
                                            const candid_image *const *images, size_t n_images,
                                            const candid_generate_params *params, candid_encoding **out,
                                            candid_error *error);
CANDID_API void candid_encoding_free(candid_encoding *encoding);

/* An image as a row sees it. branch: -1 the main row; one that sees no image is a CANDID_ERROR_ARGUMENT. *span (set its
 * struct_size): tokens and grid; *tokens: (n_tokens, n_embd) of the encoding, in raster order. */
CANDID_API candid_status candid_encoding_tokens(const candid_encoding *encoding, int32_t branch, int32_t image,
                                                candid_span *span, const float **tokens, candid_error *error);

/* All taps that candid_sequence_create wants, [*n_taps]; the encoding's. */
CANDID_API const candid_tap *candid_encoding_taps(const candid_encoding *encoding, size_t *n_taps);

/* ---- forward passes ---------------------------------------------------------------------------- */

typedef struct candid_pass candid_pass; /* work memory for passes, one after the other */

CANDID_API candid_status candid_pass_create(const candid_plugin *plugin, candid_pass **out, candid_error *error);
CANDID_API void candid_pass_free(candid_pass *pass);

/* Rows of one sequence that stand together: beams, branches and questions are segments of a pass. Those of one sequence
 * follow each other in the array; a prompt stands there once, its rows in their order, also where it is that of several
 * beams: what the host computes for one is that of all. */
typedef struct candid_segment {
    size_t struct_size;
    candid_sequence *sequence; /* beams of one prompt share it */
    candid_role role;
    int32_t batch;              /* in the first dimension of all views */
    int32_t first_row, n_rows;  /* in their row dimension; rows in no segment (padding, …) are left alone */
    int32_t first_index;        /* place of the first row's own key in its sequence; the others follow it */
    int32_t n_keys;             /* keys of the sequence there are in this pass, these rows' own included */
    int32_t key_offset;         /* key i is column key_offset + i of attention views … */
    const int32_t *key_columns; /* … or, unless NULL, column key_columns[i]; [n_keys], no column twice */
} candid_segment;

CANDID_API candid_status candid_pass_begin(candid_pass *pass, const candid_segment *segments, size_t n_segments,
                                           candid_error *error);

/* Shows a tensor. Rows of a segment lie at rows first_row … of batch element `batch`. Behind the attention of the last
 * layer only rows matter whose logits count: the prompt's last one and generated ones. A host may show those alone, all
 * that the batch element has, in the order of the segments: sequences that do not act, too, are segments then. */
CANDID_API candid_status candid_pass_at(candid_pass *pass, candid_site site, int32_t layer, const candid_view *view,
                                        candid_error *error);

/* Edits the logits of rows, (b, r, n_vocab). early: (b, r, n, n_vocab) with the greatest n_early of the pass's
 * sequences, each of which takes its own first ones; NULL where it is 0. */
CANDID_API candid_status candid_pass_logits(candid_pass *pass, const candid_view *logits, const candid_view *early,
                                            candid_error *error);

/* Ends the pass. That a wanted site was not shown is a CANDID_ERROR_ARGUMENT. */
CANDID_API candid_status candid_pass_end(candid_pass *pass, candid_error *error);

/* ---- logits of several branches ---------------------------------------------------------------- */

/* Whether the branch takes part in the choice of generated token number `n_generated` (the first is 0). */
CANDID_API bool candid_task_needs_branch(const candid_task *task, int32_t branch, int32_t n_generated);

/* The main row's logits, (n_vocab) or (rows, n_vocab), contrasted with those of the branches, in place. branches:
 * [n_branches] views alike, data NULL where candid_task_needs_branch says no. Comes before everything that makes a
 * choice of logits: penalties, temperature, top-k. */
CANDID_API candid_status candid_task_contrast(candid_task *task, int32_t n_generated, const candid_view *main,
                                              const candid_view *branches, size_t n_branches, candid_error *error);

/* ---- search ------------------------------------------------------------------------------------ */

/*
 * OPERA tells the host what to do next. Beams are numbered; each is a copy of the prompt with tokens of its own.
 *
 *   logits of all running beams  -> candid_search_logits -> MEASURE  run every candidate as the next token of its beam
 *                                                                    in one pass, then candid_search_measured
 *   attention of the candidates  -> candid_search_measured -> CONTINUE or ROLLBACK or STOP
 *
 *   CONTINUE   new beam i is beam parents[i] with tokens[i], which was its candidate number candidates[i] (whose keys,
 *              values and logits are at hand) or, where that is -1, has to be run: then candid_search_logits
 *   ROLLBACK   the beams are those of n_tokens tokens again, candid_search_beam tells their tokens: take the others out
 *              of the caches, give their logits to candid_search_again
 *   STOP       candid_search_answer tells what was found
 *
 * The attention is that of the main sequence's passes: candidates are segments in the order beam, candidate. Where a
 * token that was no candidate was run, candid_search_measured_beams is told before the next logits.
 */
typedef struct candid_search candid_search;

typedef enum candid_verb {
    CANDID_VERB_MEASURE = 0,
    CANDID_VERB_CONTINUE = 1,
    CANDID_VERB_ROLLBACK = 2,
    CANDID_VERB_STOP = 3
} candid_verb;

/* What the host has to do; arrays are the search's, valid until its next call. */
typedef struct candid_order {
    size_t struct_size; /* set by the caller: sizeof(candid_order) */
    candid_verb verb;
    int32_t n_tokens;          /* that each beam has when this is carried out */
    int32_t n_beams;           /* beams then (MEASURE: now) */
    int32_t n_candidates;      /* MEASURE: of each beam */
    const int32_t *tokens;     /* MEASURE: (n_beams, n_candidates); CONTINUE: [n_beams] */
    const int32_t *parents;    /* CONTINUE */
    const int32_t *candidates; /* CONTINUE */
} candid_order;

typedef struct candid_search_params {
    size_t struct_size;
    int32_t n_prompt_ids;      /* tokens of the prompt, an image counted as one: part of the length in scores */
    int32_t max_new_tokens;    /* >= 1 */
    const int32_t *end_tokens; /* [n_end_tokens], copied */
    size_t n_end_tokens;
} candid_search_params;

/* sequence: the main one, borrowed. */
CANDID_API candid_status candid_search_create(candid_task *task, candid_sequence *sequence,
                                              const candid_search_params *params, candid_search **out,
                                              candid_error *error);
CANDID_API void candid_search_free(candid_search *search);

/* logits: (beams, n_vocab); one beam at first. */
CANDID_API candid_status candid_search_logits(candid_search *search, const candid_view *logits, candid_order *out,
                                              candid_error *error);
CANDID_API candid_status candid_search_measured(candid_search *search, candid_order *out, candid_error *error);
CANDID_API candid_status candid_search_again(candid_search *search, const candid_view *logits, candid_order *out,
                                             candid_error *error);

/* The last pass ran the new tokens of these beams (n of them, segments in this order). */
CANDID_API candid_status candid_search_measured_beams(candid_search *search, const int32_t *beams, size_t n,
                                                      candid_error *error);

/* The tokens of a running beam: ids[n_tokens]. */
CANDID_API candid_status candid_search_beam(const candid_search *search, int32_t beam, int32_t *ids,
                                            candid_error *error);

/* Answer number `rank`, best first. ids: room for max_new_tokens; its end token, if it has one, is not among them. A
 * rank beyond the last is a CANDID_ERROR_ARGUMENT. */
CANDID_API candid_status candid_search_answer(const candid_search *search, int32_t rank, int32_t *ids, size_t *n_ids,
                                              float *score, candid_error *error);

/* What the search did: JSON. Owned by the caller: candid_string_free. */
CANDID_API candid_status candid_search_report(const candid_search *search, char **out, candid_error *error);

#ifdef __cplusplus
}
#endif

#endif
