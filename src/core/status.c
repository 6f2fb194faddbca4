/* Status codes with a message. */
#include "core/status.h"

#include <stdarg.h>
#include <stdio.h>

candid_status fail(candid_error *error, candid_status status, const char *format, ...) {
    if (error) {
        error->status = status;
        va_list args;
        va_start(args, format);
        vsnprintf(error->message, sizeof error->message, format, args);
        va_end(args);
    }
    return status;
}

candid_status fail_memory(candid_error *error, const char *what, size_t bytes) {
    return fail(error, CANDID_ERROR_MEMORY, "out of memory: cannot allocate %zu bytes for %s", bytes, what);
}

const char *candid_status_name(candid_status status) {
    switch (status) {
    case CANDID_OK: return "ok";
    case CANDID_ERROR_ARGUMENT: return "argument error";
    case CANDID_ERROR_IO: return "input/output error";
    case CANDID_ERROR_FORMAT: return "format error";
    case CANDID_ERROR_UNSUPPORTED: return "unsupported";
    case CANDID_ERROR_MEMORY: return "out of memory";
    case CANDID_ERROR_CONTEXT: return "context overflow";
    case CANDID_ERROR_CANCELLED: return "cancelled";
    case CANDID_ERROR_INTERNAL: return "internal error";
    }
    return "unknown status";
}

const char *candid_version(void) {
#define STRING_(x) #x
#define STRING(x)  STRING_(x)
    return STRING(CANDID_VERSION_MAJOR) "." STRING(CANDID_VERSION_MINOR) "." STRING(CANDID_VERSION_PATCH);
}
