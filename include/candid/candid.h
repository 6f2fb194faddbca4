/*
 * candid: a vision-language runtime that says what it sees.
 *
 * Runs LLaVA-style models (CLIP image encoder, projector, LLaMA decoder) from GGUF files and Hugging Face directories.
 *
 * Conventions
 *   - Every call that can fail returns a candid_status. The sentence that explains a failure (what was
 *     expected, what was found, where) goes to the candid_error the caller passes; NULL is allowed.
 *   - Handles are opaque. What a `*_open`, `*_create` or `*_load` call returns is owned by the caller and
 *     released with the matching `*_free`, which accepts NULL.
 *   - Parameter structs begin with `struct_size`. Obtain them from their `*_default` function, then change
 *     fields; a library newer than its host knows from struct_size which fields the host has. These functions are
 *     the header's, not the library's, so that they are as old as the host.
 *   - Strings are UTF-8 and NUL-terminated. Strings inside a result belong to the result.
 *
 * Threads
 *   - The library has no global mutable state.
 *   - A candid_model never changes after it was opened: any number of threads may use it at once.
 *   - A candid_image never changes either.
 *   - A candid_context (KV cache and work buffers) belongs to one thread at a time.
 *   - A candid_config may be read by any number of threads, as long as none calls candid_config_set.
 *   - Callbacks are called on the thread that called into the library.
 */
#ifndef CANDID_CANDID_H
#define CANDID_CANDID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define CANDID_API __declspec(dllexport)
#else
#define CANDID_API __attribute__((visibility("default")))
#endif

#define CANDID_VERSION_MAJOR 0
#define CANDID_VERSION_MINOR 1
#define CANDID_VERSION_PATCH 0

/* "0.1.0", static. */
CANDID_API const char *candid_version(void);

/* ---- status and errors ------------------------------------------------------------------------- */

typedef enum candid_status {
    CANDID_OK = 0,
    CANDID_ERROR_ARGUMENT = 1,    /* a parameter is out of range, a required pointer is NULL */
    CANDID_ERROR_IO = 2,          /* a file cannot be opened, read or written */
    CANDID_ERROR_FORMAT = 3,      /* a file is truncated, contradicts itself or is not what it should be */
    CANDID_ERROR_UNSUPPORTED = 4, /* well-formed, but this build cannot run it (type, architecture, …) */
    CANDID_ERROR_MEMORY = 5,      /* an allocation failed */
    CANDID_ERROR_CONTEXT = 6,     /* prompt plus requested tokens do not fit in the context window */
    CANDID_ERROR_CANCELLED = 7,   /* should_cancel asked to stop */
    CANDID_ERROR_INTERNAL = 8     /* a bug or a failing third-party library; please report */
} candid_status;

/* A short English name such as "format error"; static. */
CANDID_API const char *candid_status_name(candid_status status);

/* Owned by the caller, filled by a failing call, left alone by a successful one. */
typedef struct candid_error {
    candid_status status;
    char message[512]; /* one sentence, NUL-terminated, without newline */
} candid_error;

/* ---- log --------------------------------------------------------------------------------------- */

typedef enum candid_log_level { CANDID_LOG_DEBUG = 0, CANDID_LOG_INFO = 1, CANDID_LOG_WARN = 2 } candid_log_level;

/* `message` has no trailing newline and is valid during the call only. */
typedef void (*candid_log_fn)(void *user_data, candid_log_level level, const char *message);

/* ---- model ------------------------------------------------------------------------------------- */

typedef struct candid_model candid_model;

typedef enum candid_precision {
    CANDID_PRECISION_FAST = 0, /* quantised and reduced-precision kernels, chosen by CPU features */
    CANDID_PRECISION_EXACT = 1 /* plain f32 reference arithmetic everywhere */
} candid_precision;

typedef struct candid_model_params {
    size_t struct_size;
    const char *mmproj_path;    /* image encoder + projector, see candid_model_open; NULL when the model holds both */
    candid_precision precision; /* default FAST */
    int n_threads;              /* 0: all cores this process may use */
    candid_log_fn log;          /* NULL: silent. Must stay callable as long as the model lives */
    void *log_user_data;
} candid_model_params;

static inline candid_model_params candid_model_params_default(void) {
    candid_model_params params;
    memset(&params, 0, sizeof params);
    params.struct_size = sizeof params;
    return params;
}

/* Opens a GGUF language model (and its mmproj), or a Hugging Face directory with safetensors weights: llava-hf's
 * LLaVA-1.5 and LLaVA-NeXT, the original LLaVA's (its CLIP directory is mmproj_path then), LLaMA and Mistral. Files are
 * memory-mapped, not converted, and must not change meanwhile. params may be NULL (defaults). On success *out is owned
 * by the caller: candid_model_free. */
CANDID_API candid_status candid_model_open(const char *path, const candid_model_params *params, candid_model **out,
                                           candid_error *error);

/* The same for a GGUF file already in memory, which must hold language model and image encoder, or the
 * latter in params->mmproj_path. `data` (`size` bytes, 32-byte aligned) is borrowed and must outlive the model. */
CANDID_API candid_status candid_model_open_memory(const void *data, size_t size, const candid_model_params *params,
                                                  candid_model **out, candid_error *error);

/* All contexts of the model must have been freed before. */
CANDID_API void candid_model_free(candid_model *model);

/* What the model is, filled by candid_model_get_info; strings belong to the model. */
typedef struct candid_model_info {
    size_t struct_size;  /* set by the caller: sizeof(candid_model_info) */
    const char *name;    /* general.name, or "" */
    const char *backend; /* e.g. "cpu exact", "cpu fast (avx2, gemm int16)" */
    bool has_vision;     /* an image encoder is present */
    int n_layer, n_head, n_head_kv, n_embd, n_vocab;
    int n_ctx_train;          /* the context window the model was trained for, tokens */
    int image_size;           /* pixels, 0 without vision */
    int image_tokens;         /* visual tokens per view of an image (LLaVA-NeXT takes several), 0 without vision */
    uint64_t file_bytes;      /* size of the mapped files */
    const char *conversation; /* what is used where none is given: a template's name, or text with {prompt} */
    int n_vision_blocks;      /* blocks of the image encoder up to the one whose output is used, 0 without vision */
} candid_model_info;

CANDID_API candid_status candid_model_get_info(const candid_model *model, candid_model_info *info, candid_error *error);

/* ---- images ------------------------------------------------------------------------------------ */

typedef struct candid_image candid_image;

/* Decodes JPEG, PNG, BMP, GIF (first frame) or binary PNM; greyscale and palette become RGB, alpha is dropped as
 * Pillow's convert("RGB") drops it, 16-bit channels keep their high byte. The EXIF orientation is ignored, as Pillow's
 * open ignores it. A truncated or damaged file is an error that names it. */
CANDID_API candid_status candid_image_load(const char *path, candid_image **out, candid_error *error);

/* The same for an encoded file in memory; `name` appears in errors and may be NULL. `data` is not kept. */
CANDID_API candid_status candid_image_load_memory(const void *data, size_t size, const char *name, candid_image **out,
                                                  candid_error *error);

/* Copies `height` rows of `width` RGB pixels (3 bytes each); `stride` is the distance of rows in bytes. */
CANDID_API candid_status candid_image_from_rgb(const uint8_t *rgb, int width, int height, size_t stride,
                                               candid_image **out, candid_error *error);

CANDID_API int candid_image_width(const candid_image *image);
CANDID_API int candid_image_height(const candid_image *image);

/* (height, width, 3) bytes RGB without gaps, the image's own; NULL for NULL. */
CANDID_API const uint8_t *candid_image_pixels(const candid_image *image);
CANDID_API void candid_image_free(candid_image *image);

/* ---- context ----------------------------------------------------------------------------------- */

typedef struct candid_context candid_context;

typedef enum candid_kv_type {
    CANDID_KV_DEFAULT = 0, /* f32 with CANDID_PRECISION_EXACT, else f16 */
    CANDID_KV_F16 = 1,
    CANDID_KV_F32 = 2
} candid_kv_type;

typedef struct candid_context_params {
    size_t struct_size;
    int n_ctx;              /* tokens the KV cache may hold; 0: what the model was trained for */
    candid_kv_type kv_type; /* element type of the KV cache */
} candid_context_params;

static inline candid_context_params candid_context_params_default(void) {
    candid_context_params params;
    memset(&params, 0, sizeof params);
    params.struct_size = sizeof params;
    return params;
}

/* The model must outlive the context. params may be NULL. */
CANDID_API candid_status candid_context_create(const candid_model *model, const candid_context_params *params,
                                               candid_context **out, candid_error *error);
CANDID_API void candid_context_free(candid_context *context);

/* ---- configuration ----------------------------------------------------------------------------- */

/* Which mitigation methods are active, and the value of every option: docs/config.md describes methods and format. */
typedef struct candid_config candid_config;

/* Reads and checks a JSON file; file names in it are relative to its directory. An invalid one is a CANDID_ERROR_FORMAT
 * that names file, line and key, what was expected and what was found. On success *out is owned by the caller:
 * candid_config_free. */
CANDID_API candid_status candid_config_load(const char *path, candid_config **out, candid_error *error);

/* The same for `size` bytes of JSON text in memory (no NUL needed, not kept; "{}" switches nothing on). `name` appears
 * in errors and may be NULL; file names in the text are relative to the current directory. */
CANDID_API candid_status candid_config_parse(const char *text, size_t size, const char *name, candid_config **out,
                                             candid_error *error);

/* Changes one thing: "var.rho=0.4" (an option; the method is switched on), "var=true", "var=false", "var.preset=paper"
 * (options given before keep their values), "var.enabled=false". The right side is JSON, or plain text where that is
 * what the option takes; file names are relative to the current directory. An error names the assignment and leaves the
 * configuration as it was. */
CANDID_API candid_status candid_config_set(candid_config *config, const char *assignment, candid_error *error);

CANDID_API void candid_config_free(candid_config *config);

/* JSON Schema (draft 2020-12) of configurations. On success *out is owned by the caller: candid_string_free. */
CANDID_API candid_status candid_config_schema(char **out, candid_error *error);

/* Releases a string that the library handed over; NULL is allowed. */
CANDID_API void candid_string_free(char *string);

/* ---- generation -------------------------------------------------------------------------------- */

/* How an image becomes the encoder's square inputs (all bicubic, equal to Pillow byte for byte). */
typedef enum candid_preprocess {
    CANDID_PREPROCESS_AUTO = 0,  /* what the model's files say; pad where they say nothing */
    CANDID_PREPROCESS_PAD = 1,   /* original LLaVA-1.5: pad to a square with the mean colour, then resize */
    CANDID_PREPROCESS_CROP = 2,  /* Hugging Face's LLaVA-1.5: resize the shortest edge, then crop the centre */
    CANDID_PREPROCESS_ANYRES = 3 /* LLaVA-NeXT: the whole image and tiles of it; models made for it only */
} candid_preprocess;

typedef enum candid_finish {
    CANDID_FINISH_EOS = 0,      /* the model ended its answer */
    CANDID_FINISH_STOP = 1,     /* a stop string was met (and is not part of the text) */
    CANDID_FINISH_LENGTH = 2,   /* max_new_tokens were generated */
    CANDID_FINISH_CANCELLED = 3 /* on_text returned false; or the best answer found before a search was cancelled */
} candid_finish;

/* Receives each new piece of text (complete UTF-8 characters, `size` bytes, also NUL-terminated). Return false to stop
 * the generation. Beam search, OPERA and several answers hand over their first answer whole, at the end, when there is
 * nothing left to stop. */
typedef bool (*candid_text_fn)(void *user_data, const char *text, size_t size);

/* Polled often during image encoding and prefill (once per layer) and once per generated token; must be quick.
 * Return true to end the call with CANDID_ERROR_CANCELLED (text so far is lost; to keep it, stop in on_text). Beam
 * search and OPERA return the best answer they have finished by then, if there is one, as CANDID_FINISH_CANCELLED. */
typedef bool (*candid_cancel_fn)(void *user_data);

typedef struct candid_generate_params {
    size_t struct_size;
    int max_new_tokens; /* 0 (default): 512 or what is left of the context window, if that is less */
    /* These four give way to the configuration's "decode" values where they are left at their defaults. */
    float temperature;        /* 0 (default): greedy */
    int top_k;                /* 0 (default): off */
    float top_p;              /* 1 (default): off */
    float repetition_penalty; /* 1 (default): off; as in transformers, over prompt and generated tokens */
    uint64_t seed;            /* of the sampler (several samples: of the first, the others count up); default 0 */
    candid_preprocess preprocess;
    const char *conversation; /* template name or text with {prompt}; NULL: the model's own, else "vicuna_v1" */
    const char *const *stop;  /* n_stop strings that end the answer; may be NULL */
    size_t n_stop;
    candid_text_fn on_text; /* may be NULL */
    void *on_text_user_data;
    candid_cancel_fn should_cancel; /* may be NULL */
    void *should_cancel_user_data;
    const candid_config *config; /* methods and search, borrowed for the call; NULL: none, greedy or sampled */
} candid_generate_params;

static inline candid_generate_params candid_generate_params_default(void) {
    candid_generate_params params;
    memset(&params, 0, sizeof params);
    params.struct_size = sizeof params;
    params.top_p = 1.0f;
    params.repetition_penalty = 1.0f;
    return params;
}

/* A should_cancel whose user data is an int (4 bytes) that any thread may set to nonzero at any time. */
CANDID_API bool candid_cancel_when_set(void *flag);

typedef struct candid_stats {
    double load_ms;       /* image preprocessing */
    double encode_ms;     /* image encoder and projector, all images */
    double prefill_ms;    /* decoder over the prompt */
    double decode_ms;     /* all steps after the first token */
    int n_prompt;         /* prompt length in tokens, visual tokens included */
    int n_generated;      /* tokens of all answers returned, end tokens included */
    double decode_bytes;  /* bytes of weights and KV cache read in decode_ms, by counting */
    uint32_t fingerprint; /* CRC-32 of all logits the tokens were chosen from */
} candid_stats;

/* One of several answers. */
typedef struct candid_answer {
    const char *text; /* as in candid_result */
    const int32_t *tokens;
    size_t n_tokens;
    candid_finish finish;
    float score; /* beam search and OPERA: sum of log-probabilities with the length penalty; else 0 */
} candid_answer;

typedef struct candid_result {
    const char *text;      /* the (best) answer without leading space, NUL-terminated */
    const int32_t *tokens; /* n_tokens generated ids, the end token included if it was generated */
    size_t n_tokens;
    candid_finish finish;
    candid_stats stats;
    const char *interventions; /* JSON object: by method what it did ("active", "layers", "edits", …) or "why" it did
                                * nothing, see docs/methods.md; "{}" without methods */
    const candid_answer
        *answers; /* all n_answers of them, 1 or as many as the configuration's decode.answers asks for (beam
                   * search may find fewer): best first, samples in the order drawn; the first is the one above */
    size_t n_answers;
} candid_result;

/* Answers `prompt` about `n_images` images (0 allowed). Each image is placed where the conversation template or
 * the prompt says "<image>"; images without a place come first, each followed by a newline, as in LLaVA.
 * If the prompt and a max_new_tokens given above 0 exceed the context together, the call fails with
 * CANDID_ERROR_CONTEXT before any work. The context is reset first. params may be NULL.
 * On success *out is owned by the caller: candid_result_free. */
CANDID_API candid_status candid_generate(candid_context *context, const candid_image *const *images, size_t n_images,
                                         const char *prompt, const candid_generate_params *params,
                                         const candid_result **out, candid_error *error);

CANDID_API void candid_result_free(const candid_result *result);

/* ---- many questions ---------------------------------------------------------------------------- */

/* One of several requests: images and prompt as in candid_generate. */
typedef struct candid_request {
    const candid_image *const *images;
    size_t n_images;
    const char *prompt;
} candid_request;

/* What candid_generate_many had to do. */
typedef struct candid_sharing {
    size_t struct_size; /* set by the caller: sizeof(candid_sharing) */
    int64_t n_prompt;   /* tokens of all prompts and of the branches they are contrasted with, visual tokens included */
    int64_t n_prefilled;                              /* tokens that were read */
    int64_t n_images;                                 /* images of all requests */
    int64_t n_encoded;                                /* images that were encoded for them */
    double load_ms, encode_ms, prefill_ms, decode_ms; /* as in candid_stats, all together */
    char why_not[200]; /* why a beginning that prompts have in common was read for each anew, or "" */
} candid_sharing;

/*
 * Answers n requests, each as candid_generate would. Requests with the same images (the same pointers) that follow each
 * other share them: an image is encoded once, the beginning that their prompts have in common is read once, and what is
 * left of them is read side by side. Greedy or sampled answers, one each, of all requests are decoded side by side, so
 * that weights are read once per step for all; beam search, OPERA and several answers go one after the other. Methods
 * that look at the question before the image is read (VHR, MMA, VISTA, ACT) or look twice share the encoded images at
 * most; why_not says so.
 *
 * On the exact path answers are those of candid_generate, bit for bit; the fast path may round differently, as more
 * rows go through it at a time. Time and bytes of shared work are divided evenly among the results' stats; in
 * `interventions`, "shared_tokens" and "kv_bytes" tell of all requests together. on_text of params is not called.
 * sharing may be NULL.
 *
 * out: [n]; on success the caller frees each with candid_result_free. On failure none is to be freed, and the message
 * tells the number of the request where it is one's own.
 */
CANDID_API candid_status candid_generate_many(candid_context *context, const candid_request *requests, size_t n,
                                              const candid_generate_params *params, candid_sharing *sharing,
                                              const candid_result **out, candid_error *error);

/* ---- looking inside ---------------------------------------------------------------------------- */

/* Where vectors of an image are taken from. */
typedef enum candid_features {
    CANDID_FEATURES_PROJECTED = 0, /* behind the projector: visual tokens, as they stand in the prompt, those of
                                    * LLaVA-NeXT's tiles joined and its newline vectors between them */
    CANDID_FEATURES_ENCODER = 1    /* before it: what the image encoder says of each patch, row by row, view after
                                    * view (LLaVA-NeXT: the whole image, then its tiles), without the class token */
} candid_features;

/*
 * Encodes one image, as candid_generate does it before anything is asked. Of params (may be NULL) preprocess and
 * should_cancel count. *n_rows and *n_embd receive the shape, and `out` (n_rows, n_embd) values if its `capacity`, in
 * floats, is enough; else the call is a CANDID_ERROR_ARGUMENT that names both. With capacity 0 (out may be NULL) the
 * shape is all, and nothing is encoded. A model without image encoder is CANDID_ERROR_UNSUPPORTED.
 */
CANDID_API candid_status candid_encode_image(candid_context *context, const candid_image *image,
                                             candid_features features, const candid_generate_params *params, float *out,
                                             size_t capacity, int *n_rows, int *n_embd, candid_error *error);

/* Where the tokens of an answer looked. */
typedef struct candid_attention {
    size_t n_tokens;
    int n_layer;
    int grid_h, grid_w;      /* cells of the image, of LLaVA-NeXT those of the view that shows it whole */
    const float *values;     /* (n_tokens, n_layer, grid_h, grid_w) share of the attention of the row that predicts the
                              * token that is on each cell, mean over the heads, after what methods change of it */
    const char *text;        /* what the tokens spell, UTF-8 (bytes that are none are '?'), NUL-terminated */
    const size_t *token_end; /* [n_tokens] where in the text each one's bytes end */
} candid_attention;

/*
 * Reads the prompt about the images once more and then the n_tokens `tokens` (usually a candid_result's), and notes the
 * attention to image number `which`. Methods of params->config act as in candid_generate, but for contrasts and
 * searches: there is nothing to choose. Methods that look twice are CANDID_ERROR_ARGUMENT. Of params (may be NULL)
 * preprocess, conversation, should_cancel and config count. On success *out is owned by the caller:
 * candid_attention_free.
 */
CANDID_API candid_status candid_attention_of(candid_context *context, const candid_image *const *images,
                                             size_t n_images, size_t which, const char *prompt,
                                             const candid_generate_params *params, const int32_t *tokens,
                                             size_t n_tokens, const candid_attention **out, candid_error *error);
CANDID_API void candid_attention_free(const candid_attention *attention);

/*
 * A copy of the image, half way to grey, under a heat map of its cells. values: (grid_h, grid_w) of the model as in
 * candid_attention; `brightest` and more is light yellow, 0 (or less) black, drawn smoothly; brightest 0: the value
 * that 98 in 100 cells do not exceed, as a few tokens may soak up attention. What the encoder does not see of the image
 * (params->preprocess; params may be NULL) is veiled. On success *out is owned by the caller: candid_image_free.
 */
CANDID_API candid_status candid_image_overlay(const candid_model *model, const candid_image *image, const float *values,
                                              float brightest, const candid_generate_params *params, candid_image **out,
                                              candid_error *error);

#ifdef __cplusplus
}
#endif

#endif
