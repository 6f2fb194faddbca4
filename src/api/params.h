/* Versioned parameter structs: the first field of each is struct_size, as the host's header defined it. */
#ifndef CANDID_API_PARAMS_H
#define CANDID_API_PARAMS_H

#include <string.h>

#include "core/status.h"

/* The size that the host's struct says it has. */
static inline candid_status params_size(const void *given, size_t *size, const char *what, candid_error *error) {
    memcpy(size, given, sizeof *size);
    if (*size < sizeof(size_t) || *size > 65536) {
        return fail(error, CANDID_ERROR_ARGUMENT, "%s: struct_size is %zu: set it to the size of the struct", what,
                    *size);
    }
    return CANDID_OK;
}

/* Copies the fields the host knows over the defaults in `full`. `given` may be NULL (all defaults). */
static inline candid_status params_read(void *full, size_t full_size, const void *given, const char *what,
                                        candid_error *error) {
    if (!given) {
        return CANDID_OK;
    }
    size_t given_size;
    TRY(params_size(given, &given_size, what, error));
    memcpy(full, given, given_size < full_size ? given_size : full_size);
    return CANDID_OK;
}

/* Copies as much of `full` as the host's struct holds, keeping its struct_size. */
static inline candid_status params_write(void *given, const void *full, size_t full_size, const char *what,
                                         candid_error *error) {
    size_t given_size;
    TRY(params_size(given, &given_size, what, error));
    memcpy(given, full, given_size < full_size ? given_size : full_size);
    memcpy(given, &given_size, sizeof given_size);
    return CANDID_OK;
}

#endif
