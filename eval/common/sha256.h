/* SHA-256 (FIPS 180-4): which file was read. */
#ifndef CANDID_EVAL_COMMON_SHA256_H
#define CANDID_EVAL_COMMON_SHA256_H

#include <stddef.h>
#include <stdint.h>

#include "candid/candid.h"

struct sha256 {
    uint32_t state[8];
    uint64_t n_bytes;
    uint8_t block[64]; /* the last n_bytes % 64 bytes */
};

void sha256_begin(struct sha256 *h);
void sha256_add(struct sha256 *h, const void *data, size_t size);
/* The digest as 64 lower-case digits and a NUL. */
void sha256_end(struct sha256 *h, char hex[65]);

/* All three at once. */
void sha256_hex(const void *data, size_t size, char hex[65]);
candid_status sha256_file(const char *path, char hex[65], candid_error *error);

#endif
