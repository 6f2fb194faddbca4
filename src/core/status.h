/* Status codes with a message: the only way library code reports a failure. */
#ifndef CANDID_CORE_STATUS_H
#define CANDID_CORE_STATUS_H

#include "candid/candid.h"

/* Stores `status` and the formatted sentence in *error (may be NULL) and returns `status`. Overlong messages are cut.
 */
candid_status fail(candid_error *error, candid_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* fail() for an allocation of `bytes` bytes for `what`. */
candid_status fail_memory(candid_error *error, const char *what, size_t bytes);

/* Returns from the calling function when `call` does not give CANDID_OK. */
#define TRY(call)                                                                                                      \
    do {                                                                                                               \
        candid_status try_status_ = (call);                                                                            \
        if (try_status_ != CANDID_OK) {                                                                                \
            return try_status_;                                                                                        \
        }                                                                                                              \
    } while (0)

/* The same where there is something to release: goes to `label` with the status in `status`. */
#define TRY_GOTO(call, status, label)                                                                                  \
    do {                                                                                                               \
        (status) = (call);                                                                                             \
        if ((status) != CANDID_OK) {                                                                                   \
            goto label;                                                                                                \
        }                                                                                                              \
    } while (0)

#endif
