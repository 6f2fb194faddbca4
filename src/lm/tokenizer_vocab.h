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
};

/* The id of the normal, user-defined or unused piece with exactly these bytes, or -1. */
int32_t vocab_find(const struct tokenizer *t, const char *bytes, size_t size);

#endif
