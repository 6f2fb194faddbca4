/* Versioned parameter structs: the first field of each is struct_size, as the host's header defined it. */
#ifndef CANDID_API_PARAMS_H
#define CANDID_API_PARAMS_H

#include <string.h>

#include "core/status.h"

/* Copies the fields the host knows over the defaults in `full`. `given` may be NULL (all defaults). */
static inline candid_status params_read(void *full, size_t full_size, const void *given, const char *what,
                                        candid_error *error) {
    if (!given) {
        return CANDID_OK;
    }
    size_t given_size;
    memcpy(&given_size, given, sizeof given_size);
    if (given_size < sizeof(size_t) || given_size > 65536) {
        return fail(error, CANDID_ERROR_ARGUMENT,
                    "%s: struct_size is %zu: obtain the struct from its _default function", what, given_size);
    }
    memcpy(full, given, given_size < full_size ? given_size : full_size);
    return CANDID_OK;
}

/* Whether params_write can write to the host's struct. */
static inline candid_status params_check(const void *given, size_t *given_size, const char *what, candid_error *error) {
    memcpy(given_size, given, sizeof *given_size);
    if (*given_size < sizeof(size_t) || *given_size > 65536) {
        return fail(error, CANDID_ERROR_ARGUMENT, "%s: struct_size is %zu: set it to the size of the struct", what,
                    *given_size);
    }
    return CANDID_OK;
}

/* Copies as much of `full` as the host's struct holds, keeping its struct_size. */
static inline candid_status params_write(void *given, const void *full, size_t full_size, const char *what,
                                         candid_error *error) {
    size_t given_size;
    TRY(params_check(given, &given_size, what, error));
    memcpy(given, full, given_size < full_size ? given_size : full_size);
    memcpy(given, &given_size, sizeof given_size);
    return CANDID_OK;
}

#endif
