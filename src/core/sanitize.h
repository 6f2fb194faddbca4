/* Whole ranges checked at once under AddressSanitizer, before a loop that is compiled without checks. */
#ifndef CANDID_CORE_SANITIZE_H
#define CANDID_CORE_SANITIZE_H

#include <stddef.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

/* Reports an error if one of the bytes must not be read. */
static inline void sanitize_readable(const void *p, size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
    const volatile char *bad = __asan_region_is_poisoned((void *)(size_t)p, bytes);
    if (bad) {
        (void)*bad;
    }
#endif
}

#endif
