/* Reads the vocabulary from GGUF metadata, checks it and indexes it. */
#include "lm/tokenizer_vocab.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"

#define KEY_MODEL  "tokenizer.ggml.model"
#define KEY_TOKENS "tokenizer.ggml.tokens"
#define KEY_SCORES "tokenizer.ggml.scores"
#define KEY_TYPES  "tokenizer.ggml.token_type"

/* Beyond any real vocabulary; keeps ids and hash slots far from the limits of int32. */
#define MAX_VOCAB (1 << 26)

/* FNV-1a; the high half is folded in because slots are chosen by the low bits. */
static uint32_t hash_bytes(const char *bytes, size_t size) {
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < size; i++) {
        h = (h ^ (uint8_t)bytes[i]) * 1099511628211u;
    }
    return (uint32_t)(h ^ (h >> 32));
}

int32_t vocab_find(const struct tokenizer *t, const char *bytes, size_t size) {
    if (size > t->longest) {
        return -1;
    }
    for (uint32_t slot = hash_bytes(bytes, size) & t->mask;; slot = (slot + 1) & t->mask) {
        const int32_t id = t->slots[slot];
        if (id < 0 || (t->pieces[id].size == size && memcmp(t->pieces[id].bytes, bytes, size) == 0)) {
            return id;
        }
    }
}

/* Of equal pieces the first keeps the place. */
static void insert(struct tokenizer *t, int32_t id) {
    const struct piece *p = &t->pieces[id];
    uint32_t slot = hash_bytes(p->bytes, p->size) & t->mask;
    while (t->slots[slot] >= 0) {
        const struct piece *other = &t->pieces[t->slots[slot]];
        if (other->size == p->size && memcmp(other->bytes, p->bytes, p->size) == 0) {
            return;
        }
        slot = (slot + 1) & t->mask;
    }
    t->slots[slot] = id;
    t->longest = p->size > t->longest ? p->size : t->longest;
}

/* An array that must exist with `count` elements (any number above 0 if *count is 0, which then receives it). */
static candid_status require_array(const struct gguf *gguf, const char *key, bool (*accepts)(enum gguf_value_type),
                                   const char *wanted, size_t *count, candid_error *error) {
    enum gguf_value_type type = GGUF_U8;
    size_t n = 0;
    TRY(gguf_get_array(gguf, key, &type, &n, error));
    if (!gguf_has_key(gguf, key)) {
        return fail(error, CANDID_ERROR_FORMAT, "%s: the tokenizer needs key %s, which is missing", gguf_path(gguf),
                    key);
    }
    if (n == 0 || n > MAX_VOCAB) {
        return fail(error, CANDID_ERROR_FORMAT, "%s: key %s: expected 1 to %d elements, found %zu", gguf_path(gguf),
                    key, MAX_VOCAB, n);
    }
    if (!accepts(type)) {
        return fail(error, CANDID_ERROR_FORMAT, "%s: key %s: expected an array of %s, found elements of type %d",
                    gguf_path(gguf), key, wanted, (int)type);
    }
    if (*count != 0 && n != *count) {
        return fail(error, CANDID_ERROR_FORMAT, "%s: key %s: expected %zu elements as in " KEY_TOKENS ", found %zu",
                    gguf_path(gguf), key, *count, n);
    }
    *count = n;
    return CANDID_OK;
}

static bool is_string(enum gguf_value_type type) {
    return type == GGUF_STRING;
}

static bool is_float(enum gguf_value_type type) {
    return type == GGUF_F32 || type == GGUF_F64;
}

static bool is_integer(enum gguf_value_type type) {
    return type <= GGUF_I32 || type == GGUF_U64 || type == GGUF_I64;
}

static int hex_digit(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

/* The value of "<0xXX>", or -1. */
static int parse_byte_piece(const char *bytes, size_t size) {
    if (size != 6 || memcmp(bytes, "<0x", 3) != 0 || bytes[5] != '>') {
        return -1;
    }
    const int high = hex_digit(bytes[3]), low = hex_digit(bytes[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

static candid_status read_pieces(const struct gguf *gguf, struct tokenizer *t, candid_error *error) {
    for (int32_t id = 0; id < t->n_vocab; id++) {
        struct piece *p = &t->pieces[id];
        size_t size = 0;
        p->bytes = gguf_array_string(gguf, KEY_TOKENS, (size_t)id, &size);
        if (size > INT32_MAX) {
            return fail(error, CANDID_ERROR_FORMAT, "%s: key " KEY_TOKENS ": token %d has %zu bytes", gguf_path(gguf),
                        id, size);
        }
        p->size = (uint32_t)size;
        p->score = gguf_array_f32(gguf, KEY_SCORES, (size_t)id);
        if (!isfinite(p->score)) {
            return fail(error, CANDID_ERROR_FORMAT,
                        "%s: key " KEY_SCORES ": expected finite numbers, found %g for token %d", gguf_path(gguf),
                        (double)p->score, id);
        }
        const int64_t type = gguf_array_i64(gguf, KEY_TYPES, (size_t)id);
        if (type < PIECE_UNDEFINED || type > PIECE_BYTE) {
            return fail(error, CANDID_ERROR_FORMAT, "%s: key " KEY_TYPES ": expected 0 to %d, found %lld for token %d",
                        gguf_path(gguf), PIECE_BYTE, (long long)type, id);
        }
        p->type = (uint8_t)type;
        if (type == PIECE_BYTE) {
            const int byte = parse_byte_piece(p->bytes, p->size);
            if (byte < 0) {
                return fail(error, CANDID_ERROR_FORMAT,
                            "%s: key " KEY_TOKENS ": token %d is of byte type, expected the form <0xXX>",
                            gguf_path(gguf), id);
            }
            p->byte = (uint8_t)byte;
        }
    }
    return CANDID_OK;
}

static bool is_special(const struct piece *p) {
    return p->size > 0 && (p->type == PIECE_CONTROL || p->type == PIECE_UNKNOWN || p->type == PIECE_USER_DEFINED);
}

static void index_pieces(struct tokenizer *t, int32_t unknown) {
    for (int i = 0; i < 256; i++) {
        t->byte_ids[i] = unknown;
    }
    for (int32_t id = t->n_vocab - 1; id >= 0; id--) {
        if (t->pieces[id].type == PIECE_BYTE) {
            t->byte_ids[t->pieces[id].byte] = id;
        }
    }
    for (int32_t id = 0; id < t->n_vocab; id++) {
        const struct piece *p = &t->pieces[id];
        if (is_special(p)) {
            t->specials[t->n_specials++] = id;
        }
        if (p->size > 0 && p->type != PIECE_CONTROL && p->type != PIECE_UNKNOWN && p->type != PIECE_BYTE) {
            insert(t, id);
        }
        t->has_unused = t->has_unused || p->type == PIECE_UNUSED;
    }
}

/* Merge sort by falling size, stable, so that among equals the smaller id stays first (qsort has no context argument
 * that is the same on all systems). */
static void sort_specials(const struct tokenizer *t, int32_t *ids, int32_t *scratch, int32_t n) {
    if (n < 2) {
        return;
    }
    const int32_t half = n / 2;
    sort_specials(t, ids, scratch, half);
    sort_specials(t, ids + half, scratch, n - half);
    memcpy(scratch, ids, (size_t)half * sizeof *ids);
    for (int32_t i = 0, j = half, k = 0; i < half; k++) {
        const bool take_left = j >= n || t->pieces[scratch[i]].size >= t->pieces[ids[j]].size;
        ids[k] = take_left ? scratch[i++] : ids[j++];
    }
}

static candid_status allocate(struct tokenizer *t, candid_error *error) {
    const size_t n = (size_t)t->n_vocab;
    size_t n_slots = 16;
    while (n_slots < 2 * n) {
        n_slots *= 2;
    }
    t->mask = (uint32_t)(n_slots - 1);
    t->pieces = calloc(n, sizeof *t->pieces);
    t->specials = calloc(n, sizeof *t->specials);
    t->slots = malloc(n_slots * sizeof *t->slots);
    if (!t->pieces || !t->specials || !t->slots) {
        return fail_memory(error, "the vocabulary",
                           n * (sizeof *t->pieces + sizeof *t->specials) + n_slots * sizeof *t->slots);
    }
    memset(t->slots, 0xff, n_slots * sizeof *t->slots);
    return CANDID_OK;
}

static candid_status get_id(const struct gguf *gguf, const char *key, const struct tokenizer *t, int32_t *id,
                            candid_error *error) {
    int64_t value = *id;
    TRY(gguf_get_i64(gguf, key, 0, t->n_vocab - 1, &value, error));
    *id = (int32_t)value;
    return CANDID_OK;
}

static candid_status check_model(const struct gguf *gguf, candid_error *error) {
    const char *model = NULL;
    TRY(gguf_get_string(gguf, KEY_MODEL, &model, error));
    if (!model) {
        return fail(error, CANDID_ERROR_FORMAT, "%s: the tokenizer needs key " KEY_MODEL ", which is missing",
                    gguf_path(gguf));
    }
    if (strcmp(model, "llama") != 0) {
        char found[64]; /* the file's text, made safe to print */
        size_t n = 0;
        for (; model[n] != '\0' && n < sizeof found - 1; n++) {
            found[n] = model[n] > ' ' && model[n] < 0x7f ? model[n] : '?';
        }
        found[n] = '\0';
        return fail(error, CANDID_ERROR_UNSUPPORTED,
                    "%s: key " KEY_MODEL ": only \"llama\" (SentencePiece) is supported, found \"%s\"", gguf_path(gguf),
                    found);
    }
    return CANDID_OK;
}

static bool is_control(const struct tokenizer *t, int32_t id) {
    return id < t->n_vocab && t->pieces[id].type == PIECE_CONTROL;
}

static candid_status load(const struct gguf *gguf, struct tokenizer *t, candid_error *error) {
    size_t count = 0;
    TRY(check_model(gguf, error));
    TRY(require_array(gguf, KEY_TOKENS, is_string, "strings", &count, error));
    TRY(require_array(gguf, KEY_SCORES, is_float, "floats", &count, error));
    TRY(require_array(gguf, KEY_TYPES, is_integer, "integers", &count, error));
    t->n_vocab = (int32_t)count;
    TRY(allocate(t, error));
    TRY(read_pieces(gguf, t, error));

    /* SentencePiece's own ids, as llama.cpp takes them where a file says nothing. */
    int32_t unknown = 0;
    t->bos = is_control(t, 1) ? 1 : -1;
    t->eos = is_control(t, 2) ? 2 : -1;
    TRY(get_id(gguf, "tokenizer.ggml.unknown_token_id", t, &unknown, error));
    TRY(get_id(gguf, "tokenizer.ggml.bos_token_id", t, &t->bos, error));
    TRY(get_id(gguf, "tokenizer.ggml.eos_token_id", t, &t->eos, error));
    TRY(get_id(gguf, "tokenizer.ggml.eot_token_id", t, &t->eot, error));
    TRY(gguf_get_bool(gguf, "tokenizer.ggml.add_bos_token", &t->add_bos, error));
    TRY(gguf_get_bool(gguf, "tokenizer.ggml.add_space_prefix", &t->add_space_prefix, error));
    TRY(gguf_get_bool(gguf, "candid.tokenizer.metaspace", &t->metaspace, error));
    TRY(gguf_get_bool(gguf, "candid.tokenizer.prefix_first", &t->prefix_first, error));
    t->add_bos = t->add_bos && t->bos >= 0;

    index_pieces(t, unknown);
    int32_t *scratch = malloc(((size_t)t->n_specials + 1) * sizeof *scratch);
    if (!scratch) {
        return fail_memory(error, "the special tokens", ((size_t)t->n_specials + 1) * sizeof *scratch);
    }
    sort_specials(t, t->specials, scratch, t->n_specials);
    free(scratch);
    return merges_load(gguf, t, error);
}

candid_status tokenizer_create(const struct gguf *gguf, struct tokenizer **out, candid_error *error) {
    struct tokenizer *t = calloc(1, sizeof *t);
    if (!t) {
        return fail_memory(error, "the tokenizer", sizeof *t);
    }
    t->bos = t->eos = t->eot = -1;
    t->add_bos = t->add_space_prefix = true;
    const candid_status status = load(gguf, t, error);
    if (status != CANDID_OK) {
        tokenizer_free(t);
        return status;
    }
    *out = t;
    return CANDID_OK;
}

void tokenizer_free(struct tokenizer *t) {
    if (t) {
        free(t->pieces);
        free(t->specials);
        free(t->slots);
        free(t->merges);
        free(t);
    }
}

int tokenizer_vocab_size(const struct tokenizer *t) {
    return t->n_vocab;
}

int32_t tokenizer_bos(const struct tokenizer *t) {
    return t->bos;
}

int32_t tokenizer_eos(const struct tokenizer *t) {
    return t->eos;
}

bool tokenizer_add_bos(const struct tokenizer *t) {
    return t->add_bos;
}

bool tokenizer_prefix_first(const struct tokenizer *t) {
    return t->prefix_first;
}

bool tokenizer_is_end(const struct tokenizer *t, int32_t id) {
    return id >= 0 && (id == t->eos || id == t->eot);
}

int tokenizer_ends(const struct tokenizer *t, int32_t ends[TOKENIZER_MAX_ENDS]) {
    int n = 0;
    if (t->eos >= 0) {
        ends[n++] = t->eos;
    }
    if (t->eot >= 0 && t->eot != t->eos) {
        ends[n++] = t->eot;
    }
    return n;
}
