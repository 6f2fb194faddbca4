/*
 * From token bytes to streamed text: complete UTF-8 characters only, nothing that may still turn out to be the start
 * of a stop string.
 */
#ifndef CANDID_DECODE_TEXT_STREAM_H
#define CANDID_DECODE_TEXT_STREAM_H

#include "candid/candid.h"

struct text_stream {
    const char *const *stop; /* n_stop strings, borrowed */
    size_t n_stop;
    candid_text_fn on_text; /* may be NULL */
    void *user_data;

    char *text; /* everything so far, NUL-terminated, owned; without leading white space */
    size_t size, capacity;
    size_t emitted;
    unsigned char partial[4]; /* bytes of an unfinished character */
    int n_partial, n_expected;
    bool stopped;   /* a stop string was met; text ends before it */
    bool cancelled; /* on_text returned false */
};

/* Appends the bytes of a token and passes on what is certain. Invalid UTF-8 becomes U+FFFD. */
candid_status text_stream_push(struct text_stream *s, const char *bytes, size_t size, candid_error *error);

/* Passes on the rest at the end of the answer. */
candid_status text_stream_finish(struct text_stream *s, candid_error *error);

void text_stream_free(struct text_stream *s);

#endif
