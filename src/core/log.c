/* Per-handle log. */
#include "core/log.h"

#include <stdarg.h>
#include <stdio.h>

void log_write(const struct logger *logger, candid_log_level level, const char *format, ...) {
    if (!logger || !logger->fn) {
        return;
    }
    char message[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    logger->fn(logger->user_data, level, message);
}
