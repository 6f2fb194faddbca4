/* REFUSED(call, status, text): the call of functions with a candid_error gives this status and a sentence that contains
 * the text. Include after cmocka.h. */
#ifndef CANDID_TESTS_REFUSED_H
#define CANDID_TESTS_REFUSED_H

#include <string.h>

#include "candid/candid.h"

#define REFUSED(call, expected, text)                                                                                  \
    do {                                                                                                               \
        candid_error error_ = {CANDID_OK, ""};                                                                         \
        candid_error *error = &error_;                                                                                 \
        const candid_status status_ = (call);                                                                          \
        if (status_ != (expected) || error_.status != (expected) || !strstr(error_.message, text)) {                   \
            fail_msg("%s: expected status %d and \"%s\", found %d: %s", #call, (int)(expected), text, (int)status_,    \
                     error_.message);                                                                                  \
        }                                                                                                              \
    } while (0)
#define WRONG(call, text) REFUSED(call, CANDID_ERROR_ARGUMENT, text)

#endif
