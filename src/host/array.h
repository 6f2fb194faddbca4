/* Arrays of versioned structs: elements lie as far apart as the first one's struct_size says. */
#ifndef CANDID_HOST_ARRAY_H
#define CANDID_HOST_ARRAY_H

#include "api/params.h"

/* Element number i, with zeros where the host's struct ends. What is read of the array is as large as its first element
 * says; all must say the same. */
static inline candid_status array_read(void *out, size_t out_size, const void *array, size_t i, const char *what,
                                       candid_error *error) {
    size_t stride, size;
    TRY(params_size(array, &stride, what, error));
    const char *element = (const char *)array + i * stride;
    memcpy(&size, element, sizeof size);
    if (size != stride) {
        return fail(error, CANDID_ERROR_ARGUMENT,
                    "%s: element %zu: expected the first one's struct_size, %zu, found %zu", what, i, stride, size);
    }
    memset(out, 0, out_size);
    memcpy(out, element, stride < out_size ? stride : out_size);
    return CANDID_OK;
}

#endif
