/*
 * The vocabulary behind the tokenizer: pieces, their scores and types, and the lookup from bytes to id.
 * Private to tokenizer.c and tokenizer_vocab.c.
 */
#ifndef CANDID_LM_TOKENIZER_VOCAB_H
#define CANDID_LM_TOKENIZER_VOCAB_H

#include "lm/tokenizer.h"

/* Values of tokenizer.ggml.token_type. */
enum piece_type {
    PIECE_UNDEFINED = 0, /* treated as normal */
    PIECE_NORMAL = 1,
    PIECE_UNKNOWN = 2,
    PIECE_CONTROL = 3,
    PIECE_USER_DEFINED = 4,
    PIECE_UNUSED = 5, /* may be passed through by merges, is split again before it is output */
    PIECE_BYTE = 6,   /* "<0xXX>", stands for one byte */
};

struct piece {
    const char *bytes; /* into the gguf, not NUL-terminated */
    uint32_t size;
    float score;
    uint8_t type;
    uint8_t byte; /* of a PIECE_BYTE */
};

/* One merge of a tokenizer.json. */
struct merge {
    int32_t left, right; /* ids */
    int32_t rank;        /* -1: an empty slot */
};

struct tokenizer {
    struct piece *pieces; /* [n_vocab] */
    int32_t n_vocab;
    int32_t *slots;        /* [mask + 1] ids of pieces that text can become, -1 = empty: open addressing */
    uint32_t mask;         /* a power of two, less one */
    uint32_t longest;      /* bytes of the longest piece in the slots */
    int32_t byte_ids[256]; /* id for each byte; the unknown id where the vocabulary has no byte piece */
    int32_t *specials;     /* [n_specials] control, unknown and user-defined pieces, longest first */
    int32_t n_specials;
    int32_t bos, eos, eot; /* -1: none */
    bool add_bos, add_space_prefix, has_unused;
    bool metaspace;       /* no space in front of a text that begins with one */
    bool prefix_first;    /* no space in front of what follows a special token */
    struct merge *merges; /* [merge_mask + 1] open addressing; NULL: pairs compete by score */
    uint32_t merge_mask;
};

/* The id of the normal, user-defined or unused piece with exactly these bytes, or -1. */
int32_t vocab_find(const struct tokenizer *t, const char *bytes, size_t size);

/* Reads tokenizer.ggml.merges ("left right", best first) if there is such a key. The pieces must be indexed already. */
candid_status merges_load(const struct gguf *gguf, struct tokenizer *t, candid_error *error);
/* The rank of the merge of two pieces, or -1. t->merges must not be NULL. */
int32_t merge_rank(const struct tokenizer *t, int32_t left, int32_t right);

#endif
