/* Base64 (RFC 4648), as data: URIs have it. */
#ifndef CANDID_CORE_BASE64_H
#define CANDID_CORE_BASE64_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

void base64_write(FILE *f, const uint8_t *data, size_t size);

#endif
