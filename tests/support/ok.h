/* OK(call): fails the test with the sentence of the call's `error` unless it gives CANDID_OK. Include after cmocka.h.
 */
#ifndef CANDID_TESTS_OK_H
#define CANDID_TESTS_OK_H

#include "candid/candid.h"

#define OK(call)                                                                                                       \
    do {                                                                                                               \
        candid_error error_ = {CANDID_OK, ""};                                                                         \
        candid_error *error = &error_;                                                                                 \
        if ((call) != CANDID_OK) {                                                                                     \
            fail_msg("%s: %s", #call, error_.message);                                                                 \
        }                                                                                                              \
    } while (0)

#endif
