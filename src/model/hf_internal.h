/* What the parts of the Hugging Face loader share. */
#ifndef CANDID_MODEL_HF_INTERNAL_H
#define CANDID_MODEL_HF_INTERNAL_H

#include "core/json.h"
#include "core/log.h"
#include "model/gguf_keys.h"
#include "model/hf.h"
#include "model/safetensors.h"

#define HF_MAX_JSON ((size_t)64 << 20) /* tokenizer.json of large vocabularies is about 20 MB */

/* ---- weights of a directory: one file, or shards with an index ---- */

struct hf_shards {
    struct safetensors **files;
    size_t n_files;
    size_t total_size;
};

/* Opens `directory`'s model.safetensors, or the shards of model.safetensors.index.json. Start from {0}. */
candid_status hf_shards_open(const char *directory, struct hf_shards *out, const struct logger *log,
                             candid_error *error);
void hf_shards_close(struct hf_shards *s);
/* The tensor and (file may be NULL) the file it is in; NULL if absent. */
const struct safetensors_tensor *hf_shards_find(const struct hf_shards *s, const char *name,
                                                const struct safetensors **file);

/* ---- config.json ---- */

/* One object of a document with the name messages give it. */
struct hf_node {
    const struct json *j;
    const cJSON *object; /* may be NULL: everything is absent */
    const char *path;    /* "text_config." */
    candid_error *error;
};

/* json_get_int of a node. */
candid_status hf_get_int(const struct hf_node *n, const char *key, int64_t min, int64_t max, int64_t *out);
/* CANDID_ERROR_UNSUPPORTED: key expected this, found that. */
candid_status hf_unsupported(const struct hf_node *n, const char *key, const char *expected);
/* A string that must be `first` or `other` (may be NULL) when it is there; *second (may be NULL): whether it is
 * `other`. */
candid_status hf_expect_string(const struct hf_node *n, const char *key, const char *first, const char *other,
                               bool *second);
/* A bool that must be `wanted`; `absent`: what it means when the key is absent. */
candid_status hf_expect_bool(const struct hf_node *n, const char *key, bool wanted, bool absent);

enum hf_layout {
    HF_LLAVA,    /* llava-hf, LLaVA-1.5 and NeXT: nested text_config, vision_config */
    HF_ORIGINAL, /* liuhaotian: flat LLaMA keys and mm_* */
    HF_TEXT,     /* language model alone */
    HF_CLIP,     /* image encoder alone */
};

#define HF_MAX_PINPOINTS 64

struct hf_config {
    enum hf_layout layout;
    bool next; /* LLaVA-NeXT: tiles, newline */
    bool tied; /* output matrix = embedding table */
    bool has_vision;
    int64_t text_layers, vision_layers;
};

/* Reads directory/config.json, sets the keys of the language model ("llama.*") if it has one, and those of LLaVA's
 * connection (feature layer, grid pinpoints, padding). */
candid_status hf_read_config(const char *directory, struct gguf_keys *keys, struct hf_config *out,
                             const struct logger *log, candid_error *error);
/* Reads the image encoder's keys ("clip.vision.*") from config.json and preprocessor_config.json of `directory`: of the
 * vision_config of a LLaVA, or of a CLIP directory. */
candid_status hf_read_vision_config(const char *directory, struct gguf_keys *keys, struct hf_config *config,
                                    candid_error *error);

/* The same from parsed files. *c is overwritten; image_size: pixels a side. */
candid_status hf_parse_config(const struct json *j, struct gguf_keys *keys, struct hf_config *c,
                              const struct logger *log, candid_error *error);
candid_status hf_parse_vision_config(const struct json *j, struct gguf_keys *keys, struct hf_config *config,
                                     int64_t *image_size, candid_error *error);
/* preprocessor_config.json. square_decided: the model says elsewhere how images become squares. */
candid_status hf_parse_preprocessor(const struct hf_node *n, int64_t image_size, bool square_decided,
                                    struct gguf_keys *keys);

/* ---- tokenizer ---- */

/* Sets tokenizer.ggml.* and candid.conversation from tokenizer.json or tokenizer.model, tokenizer_config.json,
 * generation_config.json and the chat template. n_rows: rows of the embedding table. */
candid_status hf_read_tokenizer(const char *directory, int64_t n_rows, struct gguf_keys *keys, const struct logger *log,
                                candid_error *error);

/* A vocabulary being collected. */
struct hf_piece {
    char *text; /* malloc'd, `size` bytes; NULL: no such id */
    size_t size;
    float score;
    int32_t type; /* enum piece_type of lm/tokenizer_vocab.h: values of tokenizer.ggml.token_type */
};
enum { HF_NORMAL = 1, HF_UNKNOWN = 2, HF_CONTROL = 3, HF_USER_DEFINED = 4, HF_UNUSED = 5, HF_BYTE = 6 };

struct hf_vocab {
    struct hf_piece *pieces;
    size_t count, capacity;
    int64_t bos, eos, unknown; /* -1: none */
    bool add_space_prefix;
    bool metaspace;    /* a text that begins with a space gets none in front (tokenizers' Metaspace) */
    bool prefix_first; /* only the very start of a text gets the space, not what follows a special token */
};
void hf_vocab_free(struct hf_vocab *v);
/* Sets piece `id` (copied); an id beyond the rows of any model is refused. */
candid_status hf_vocab_set(struct hf_vocab *v, int64_t id, const char *text, size_t size, float score, int32_t type,
                           const char *label, candid_error *error);

/* tokenizer.json; sets the key tokenizer.ggml.merges too. */
candid_status hf_read_tokenizer_json(const char *path, struct hf_vocab *v, struct gguf_keys *keys, bool *add_bos,
                                     candid_error *error);
/* tokenizer.model: SentencePiece's ModelProto (sentencepiece_model.proto), BPE without normalisation. */
candid_status hf_read_sentencepiece(const char *path, struct hf_vocab *v, candid_error *error);

/* The same from memory. */
candid_status hf_parse_tokenizer_json(const struct json *j, struct hf_vocab *v, struct gguf_keys *keys, bool *add_bos,
                                      candid_error *error);
candid_status hf_parse_sentencepiece(const uint8_t *data, size_t size, const char *label, struct hf_vocab *v,
                                     candid_error *error);
/* Sets tokenizer.ggml.* for n_rows rows; rows without a piece become "[PADn]". eot -1: none. */
candid_status hf_set_vocabulary(const struct hf_vocab *v, int64_t n_rows, int64_t eot, bool add_bos,
                                struct gguf_keys *keys, candid_error *error);

#endif
