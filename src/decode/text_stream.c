/* Streamed text: UTF-8 assembly and stop strings. */
#include "decode/text_stream.h"

#include <stdlib.h>
#include <string.h>

#include "core/status.h"

static candid_status append(struct text_stream *s, const void *bytes, size_t size, candid_error *error) {
    if (s->size + size + 1 > s->capacity) {
        size_t capacity = (s->size + size + 1) * 2;
        char *grown = realloc(s->text, capacity);
        if (!grown) {
            return fail_memory(error, "the answer", capacity);
        }
        s->text = grown;
        s->capacity = capacity;
    }
    memcpy(s->text + s->size, bytes, size);
    s->size += size;
    s->text[s->size] = '\0';
    return CANDID_OK;
}

/* Length of the character a lead byte begins, 0 for a byte that begins none. */
static int character_length(unsigned char lead) {
    if (lead < 0x80) {
        return 1;
    }
    return lead >= 0xc2 && lead < 0xe0 ? 2 : lead >= 0xe0 && lead < 0xf0 ? 3 : lead >= 0xf0 && lead < 0xf5 ? 4 : 0;
}

/* Whether the second byte fits the lead byte: rules out overlong forms, surrogates and values above U+10FFFF. */
static bool second_byte_fits(unsigned char lead, unsigned char second) {
    switch (lead) {
    case 0xe0: return second >= 0xa0;
    case 0xed: return second < 0xa0;
    case 0xf0: return second >= 0x90;
    case 0xf4: return second < 0x90;
    default: return true;
    }
}

static candid_status replace_partial(struct text_stream *s, candid_error *error) {
    s->n_partial = 0;
    return append(s, "\xef\xbf\xbd", 3, error);
}

static candid_status feed(struct text_stream *s, unsigned char byte, candid_error *error) {
    if (s->n_partial > 0) {
        bool fits = (byte & 0xc0) == 0x80 && (s->n_partial > 1 || second_byte_fits(s->partial[0], byte));
        if (fits) {
            s->partial[s->n_partial++] = byte;
            if (s->n_partial == s->n_expected) {
                s->n_partial = 0;
                return append(s, s->partial, (size_t)s->n_expected, error);
            }
            return CANDID_OK;
        }
        TRY(replace_partial(s, error));
    }
    int length = character_length(byte);
    if (length == 0 || byte == '\0') { /* a NUL would cut the text for C readers */
        return append(s, "\xef\xbf\xbd", 3, error);
    }
    if (length == 1) {
        bool leading_space = s->size == 0 && (byte == ' ' || byte == '\n' || byte == '\t' || byte == '\r');
        return leading_space ? CANDID_OK : append(s, &byte, 1, error);
    }
    s->partial[0] = byte;
    s->n_partial = 1;
    s->n_expected = length;
    return CANDID_OK;
}

/* Cuts the text at the first stop string, if there is one. */
static void find_stop(struct text_stream *s) {
    char *first = NULL;
    for (size_t i = 0; i < s->n_stop; i++) {
        char *at = s->stop[i][0] ? strstr(s->text + s->emitted, s->stop[i]) : NULL;
        if (at && (!first || at < first)) {
            first = at;
        }
    }
    if (first) {
        s->size = (size_t)(first - s->text);
        *first = '\0';
        s->stopped = true;
    }
}

/* Bytes at the end of the text that a stop string could begin with. */
static size_t held_back(const struct text_stream *s) {
    size_t held = 0;
    for (size_t i = 0; i < s->n_stop; i++) {
        size_t length = strlen(s->stop[i]);
        for (size_t n = length > 0 ? length - 1 : 0; n > held; n--) {
            if (n <= s->size - s->emitted && memcmp(s->text + s->size - n, s->stop[i], n) == 0) {
                held = n;
            }
        }
    }
    return held;
}

static void emit(struct text_stream *s, size_t end) {
    if (end > s->emitted) {
        if (s->on_text && !s->cancelled) {
            char saved = s->text[end];
            s->text[end] = '\0';
            s->cancelled = !s->on_text(s->user_data, s->text + s->emitted, end - s->emitted);
            s->text[end] = saved;
        }
        s->emitted = end;
    }
}

candid_status text_stream_push(struct text_stream *s, const char *bytes, size_t size, candid_error *error) {
    for (size_t i = 0; i < size; i++) {
        TRY(feed(s, (unsigned char)bytes[i], error));
    }
    if (s->text) {
        find_stop(s);
        emit(s, s->stopped ? s->size : s->size - held_back(s));
    }
    return CANDID_OK;
}

candid_status text_stream_finish(struct text_stream *s, candid_error *error) {
    if (s->n_partial > 0 && !s->stopped) {
        TRY(replace_partial(s, error));
    }
    TRY(append(s, "", 0, error)); /* an empty answer is an empty string */
    emit(s, s->size);
    return CANDID_OK;
}

void text_stream_free(struct text_stream *s) {
    free(s->text);
    s->text = NULL;
}
