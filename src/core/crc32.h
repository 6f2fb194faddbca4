/* CRC-32 (IEEE 802.3, as zlib's crc32): the fingerprint of logits. */
#ifndef CANDID_CORE_CRC32_H
#define CANDID_CORE_CRC32_H

#include <stddef.h>
#include <stdint.h>

/* Continues a checksum over `size` more bytes; start with 0. */
uint32_t crc32_update(uint32_t crc, const void *data, size_t size);

#endif
