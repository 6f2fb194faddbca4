/* Per-handle log: a callback with its user data, carried by whoever may have something to say. */
#ifndef CANDID_CORE_LOG_H
#define CANDID_CORE_LOG_H

#include "candid/candid.h"

struct logger {
    candid_log_fn fn; /* NULL: silent */
    void *user_data;
};

void log_write(const struct logger *logger, candid_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
