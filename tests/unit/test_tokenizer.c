/*
 * The tokenizer against SentencePiece's own results (tests/golden/make_tokenizer.py), against a small vocabulary worked
 * out by hand, against a naive merger, and on broken metadata.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <cjson/cJSON.h>

#include "../support/gguf_writer.h"
#include "lm/tokenizer.h"

/* ---- fixtures ---- */

struct fixture {
    uint8_t *file;
    struct gguf *gguf;
    struct tokenizer *t;
};

static void fixture_close(struct fixture *f) {
    tokenizer_free(f->t);
    gguf_close(f->gguf);
    free(f->file);
}

static candid_status fixture_open(struct gguf_writer *w, struct fixture *f, candid_error *error) {
    size_t size;
    *f = (struct fixture){0};
    f->file = gw_take(w, &size);
    assert_int_equal(gguf_open_memory(f->file, size, "memory.gguf", &f->gguf, error), CANDID_OK);
    return tokenizer_create(f->gguf, &f->t, error);
}

static struct fixture trained(void) {
    struct fixture f = {0};
    candid_error error = {0};
    assert_int_equal(gguf_open(TEST_DATA "/tokenizer.gguf", &f.gguf, &error), CANDID_OK);
    assert_int_equal(tokenizer_create(f.gguf, &f.t, &error), CANDID_OK);
    return f;
}

/* The vocabulary of the tests by hand. Ids are positions. */
/* clang-format off */
enum {
    UNK, BOS, EOS, EOT, IMG, IMG2, P1Q, QRS, BYTE_A, BYTE_FF, BYTE_F0, BYTE_0, SP, A, B, C, AB, BA, BC, SPA, X,
    Y, Z, W, XY, XYZ, XYW, UNUSED_W2, NL, SP2, LT_SLASH, S_GT, LT_0, X_4, LT_0X4, ONE_GT, U80, U7FF, U800,
    UD7FF, SURROGATE, U10000, U10FFFF, BEYOND, OVERLONG, N_PIECES
};
/* clang-format on */
static const struct {
    const char *text;
    float score;
    int32_t type;
} hand[N_PIECES] = {
    [UNK] = {"<unk>", 0, 2},
    [BOS] = {"<s>", 0, 3},
    [EOS] = {"</s>", 0, 3},
    [EOT] = {"<|end|>", 0, 3},
    [IMG] = {"<i>", 0, 4},
    [IMG2] = {"<i><i>", 0, 4},
    [P1Q] = {"ac1", 0, 4},
    [QRS] = {"c1bb", 0, 4},
    [BYTE_A] = {"<0x41>", 0, 6},
    [BYTE_FF] = {"<0xFF>", 0, 6},
    [BYTE_F0] = {"<0xf0>", 0, 6},
    [BYTE_0] = {"<0x00>", 0, 6},
    [SP] = {"\xe2\x96\x81", -9, 1},
    [A] = {"a", -10, 1},
    [B] = {"b", -10, 1},
    [C] = {"c", -10, 1},
    [AB] = {"ab", -3, 1},
    [BA] = {"ba", -3, 1},
    [BC] = {"bc", -2, 1},
    [SPA] = {"\xe2\x96\x81"
             "a",
             -1, 1},
    [X] = {"x", -10, 1},
    [Y] = {"y", -10, 1},
    [Z] = {"z", -10, 1},
    [W] = {"w", -10, 1},
    [XY] = {"xy", -4, 5},
    [XYZ] = {"xyz", -5, 1},
    [XYW] = {"xyw", -5, 5},
    [UNUSED_W2] = {"[pad]", -6, 5},
    [NL] = {"\n", -10, 1},
    [SP2] = {"\xe2\x96\x81\xe2\x96\x81", -0.5f, 1},
    /* ways to the text of "</s>" and "<0x41>" by merges */
    [LT_SLASH] = {"</", -7, 1},
    [S_GT] = {"s>", -7, 1},
    [LT_0] = {"<0", -7, 1},
    [X_4] = {"x4", -7, 1},
    [LT_0X4] = {"<0x4", -7, 1},
    [ONE_GT] = {"1>", -7, 1},
    /* characters at the limits of UTF-8, and what only looks like one */
    [U80] = {"\xc2\x80", -10, 1},
    [U7FF] = {"\xdf\xbf", -10, 1},
    [U800] = {"\xe0\xa0\x80", -10, 1},
    [UD7FF] = {"\xed\x9f\xbf", -10, 1},
    [SURROGATE] = {"\xed\xa0\x80", -10, 1},
    [U10000] = {"\xf0\x90\x80\x80", -10, 1},
    [U10FFFF] = {"\xf4\x8f\xbf\xbf", -10, 1},
    [BEYOND] = {"\xf4\x90\x80\x80", -10, 1},
    [OVERLONG] = {"\xe0\x9f\xbf", -10, 1},
};

/* What to leave out or spoil; the members' default is a good file. */
struct spoil {
    const char *model;
    bool no_model, no_tokens, no_scores, no_types, no_prefix, no_bos, no_unknown_key, scores_are_ints, tokens_are_ints;
    size_t short_scores, short_types; /* elements missing */
    float score;                      /* added to one score */
    int32_t type;                     /* instead of token C's, if not 0 */
    uint32_t bos, eos, eot;           /* instead of 1, 2, 3 */
    const char *byte_text;
};

static struct gguf_writer *hand_file(struct spoil s) {
    const char *texts[N_PIECES];
    float scores[N_PIECES];
    int32_t types[N_PIECES];
    for (int i = 0; i < N_PIECES; i++) {
        texts[i] = hand[i].text;
        scores[i] = hand[i].score;
        types[i] = hand[i].type;
    }
    scores[C] += s.score;
    types[C] = s.type ? s.type : types[C];
    texts[BYTE_A] = s.byte_text ? s.byte_text : texts[BYTE_A];
    struct gguf_writer *w = gw_open(NULL);
    if (!s.no_model) {
        gw_str(w, "tokenizer.ggml.model", s.model ? s.model : "llama");
    }
    if (s.tokens_are_ints) {
        gw_arr_i32(w, "tokenizer.ggml.tokens", types, N_PIECES);
    } else if (!s.no_tokens) {
        gw_arr_str(w, "tokenizer.ggml.tokens", texts, N_PIECES);
    }
    if (s.scores_are_ints) {
        gw_arr_i32(w, "tokenizer.ggml.scores", types, N_PIECES);
    } else if (!s.no_scores) {
        gw_arr_f32(w, "tokenizer.ggml.scores", scores, N_PIECES - s.short_scores);
    }
    if (!s.no_types) {
        gw_arr_i32(w, "tokenizer.ggml.token_type", types, N_PIECES - s.short_types);
    }
    if (!s.no_bos) {
        gw_u32(w, "tokenizer.ggml.bos_token_id", s.bos ? s.bos : BOS);
    }
    gw_u32(w, "tokenizer.ggml.eos_token_id", s.eos ? s.eos : EOS);
    gw_u32(w, "tokenizer.ggml.eot_token_id", s.eot ? s.eot : EOT);
    if (!s.no_unknown_key) {
        gw_u32(w, "tokenizer.ggml.unknown_token_id", UNK);
    }
    if (s.no_prefix) {
        gw_bool(w, "tokenizer.ggml.add_space_prefix", false);
    }
    return w;
}

static struct fixture by_hand(struct spoil s) {
    struct fixture f;
    candid_error error = {0};
    if (fixture_open(hand_file(s), &f, &error) != CANDID_OK) {
        fail_msg("%s", error.message);
    }
    return f;
}

static struct token_list encode(const struct tokenizer *t, const char *text, size_t size, bool special, bool space) {
    struct token_list list = {0};
    candid_error error = {0};
    assert_int_equal(tokenizer_encode(t, text, size, special, space, &list, &error), CANDID_OK);
    return list;
}

static void print_ids(const char *label, const int32_t *ids, size_t n) {
    print_message("%s:", label);
    for (size_t i = 0; i < n; i++) {
        print_message(" %d", ids[i]);
    }
    print_message("\n");
}

static void check_ids(const char *what, const struct token_list *got, const int32_t *ids, size_t n) {
    if (got->count != n || (n > 0 && memcmp(got->ids, ids, n * sizeof *ids) != 0)) {
        print_ids("expected", ids, n);
        print_ids("found", got->ids, got->count);
        fail_msg("ids differ for \"%s\"", what);
    }
}

/* ENCODES(t, "text", special, space, ids...) */
static void encodes(const struct tokenizer *t, const char *text, size_t size, bool special, bool space,
                    const int32_t *ids, size_t n) {
    struct token_list got = encode(t, text, size, special, space);
    check_ids(text, &got, ids, n);
    token_list_free(&got);
}
#define ENCODES(t, text, special, space, ...)                                                                          \
    encodes(t, text, sizeof(text) - 1, special, space, (const int32_t[]){__VA_ARGS__},                                 \
            sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

static char *decode(const struct tokenizer *t, const int32_t *ids, size_t n, size_t *size) {
    char *text = NULL;
    candid_error error = {0};
    assert_int_equal(tokenizer_decode(t, ids, n, &text, size, &error), CANDID_OK);
    assert_int_equal(text[*size], 0);
    return text;
}

static uint32_t next_random(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

/* ---- SentencePiece ---- */

static cJSON *read_golden(void) {
    FILE *f = fopen(TEST_GOLDEN "/tokenizer.json", "rb");
    assert_non_null(f);
    static char buffer[1 << 18];
    const size_t n = fread(buffer, 1, sizeof buffer - 1, f);
    fclose(f);
    assert_true(n > 0 && n < sizeof buffer - 1);
    buffer[n] = '\0';
    cJSON *json = cJSON_Parse(buffer);
    assert_non_null(json);
    return json;
}

static void equals_sentencepiece(void **state) {
    struct fixture f = trained();
    cJSON *golden = read_golden();
    const cJSON *entry = NULL;
    int n_cases = 0;
    cJSON_ArrayForEach(entry, golden) {
        const char *text = cJSON_GetStringValue(cJSON_GetObjectItem(entry, "text"));
        const cJSON *ids = cJSON_GetObjectItem(entry, "ids");
        const int n = cJSON_GetArraySize(ids);
        int32_t expected[1024];
        assert_true(n <= 1024);
        for (int i = 0; i < n; i++) {
            expected[i] = cJSON_GetArrayItem(ids, i)->valueint;
        }
        encodes(f.t, text, strlen(text), false, true, expected, (size_t)n);
        size_t size;
        char *decoded = decode(f.t, expected, (size_t)n, &size);
        assert_string_equal(decoded, cJSON_GetStringValue(cJSON_GetObjectItem(entry, "decoded")));
        free(decoded);
        n_cases++;
    }
    assert_true(n_cases >= 200);
    cJSON_Delete(golden);
    fixture_close(&f);
}

static size_t put_character(char *to, uint32_t c) {
    if (c < 0x80) {
        to[0] = (char)c;
        return 1;
    }
    const int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    to[0] = (char)((0xff00 >> (more + 1)) | (c >> (6 * more)));
    for (int i = 1; i <= more; i++) {
        to[i] = (char)(0x80 | ((c >> (6 * (more - i))) & 0x3f));
    }
    return (size_t)more + 1;
}

static void random_unicode_survives(void **state) {
    struct fixture f = trained();
    char fox[4];
    assert_int_equal(put_character(fox, 0x1f98a), 4);
    assert_memory_equal(fox, "\xf0\x9f\xa6\x8a", 4);
    uint64_t random = 1;
    for (int round = 0; round < 3000; round++) {
        char text[400];
        size_t size = 0;
        for (uint32_t n = next_random(&random) % 80; n > 0; n--) {
            static const uint32_t limits[] = {0x80, 0x80, 0x80, 0x800, 0x3000, 0x10000, 0x110000};
            const uint32_t limit = limits[next_random(&random) % 7];
            uint32_t c = next_random(&random) % limit;
            c = next_random(&random) % 6 == 0 ? ' ' : c;
            /* U+2581 is the space to SentencePiece: the one character that does not survive */
            if ((c < 0xd800 || c > 0xdfff) && c != 0x2581) {
                size += put_character(text + size, c);
            }
        }
        struct token_list ids = encode(f.t, text, size, false, true);
        size_t decoded_size;
        char *decoded = decode(f.t, ids.ids, ids.count, &decoded_size);
        assert_int_equal(decoded_size, size);
        assert_memory_equal(decoded, text, size);
        free(decoded);
        token_list_free(&ids);
    }
    fixture_close(&f);
}

static void random_bytes_survive(void **state) {
    struct fixture f = trained();
    uint64_t random = 2;
    for (int round = 0; round < 3000; round++) {
        char text[64];
        const size_t size = next_random(&random) % sizeof text;
        for (size_t i = 0; i < size; i++) {
            const uint32_t c = next_random(&random);
            text[i] = (char)(c % 3 == 0 ? 0x80 + (c >> 8) % 128 : c >> 8);
        }
        struct token_list ids = encode(f.t, text, size, false, true);
        size_t decoded_size;
        char *decoded = decode(f.t, ids.ids, ids.count, &decoded_size);
        assert_int_equal(decoded_size, size);
        assert_memory_equal(decoded, text, size);
        free(decoded);
        token_list_free(&ids);
    }
    fixture_close(&f);
}

static void long_texts(void **state) {
    struct fixture f = trained();
    const size_t size = 1 << 20;
    char *text = malloc(size);
    assert_non_null(text);
    uint64_t random = 3;
    for (int kind = 0; kind < 3; kind++) { /* one character repeated, words of random letters, spaces only */
        for (size_t i = 0; i < size; i++) {
            text[i] = kind == 0 ? 'e' : kind == 1 ? " etaoinshr"[next_random(&random) % 10] : ' ';
        }
        struct token_list ids = encode(f.t, text, size, true, true);
        size_t decoded_size;
        char *decoded = decode(f.t, ids.ids, ids.count, &decoded_size);
        assert_int_equal(decoded_size, size);
        assert_memory_equal(decoded, text, size);
        free(decoded);
        token_list_free(&ids);
    }
    free(text);
    fixture_close(&f);
}

/* ---- by hand ---- */

static void merges(void **state) {
    struct fixture f = by_hand((struct spoil){0});
    ENCODES(f.t, "aba", false, false, AB, A);    /* ab and ba tie: the left one */
    ENCODES(f.t, "baba", false, false, BA, BA);  /* again, not b ab a */
    ENCODES(f.t, "abc", false, false, A, BC);    /* bc scores more than ab */
    ENCODES(f.t, "bab", false, true, SP, BA, B); /* the prefix has no piece with b */
    ENCODES(f.t, "abc", false, true, SPA, BC);   /* "▁a" first of all */
    ENCODES(f.t, "a a", false, true, SPA, SPA);  /* a space becomes U+2581 */
    ENCODES(f.t,
            "a\xe2\x96\x81"
            "a",
            false, true, SPA, SPA);                /* as U+2581 itself does */
    ENCODES(f.t, "  a", false, false, SP2, A);     /* "▁▁" scores more than "▁a" */
    ENCODES(f.t, "  a", false, true, SP2, SPA);    /* three in all, the left two are paired */
    ENCODES(f.t, "\nab", false, true, SP, NL, AB); /* how a text goes on after an image */
    encodes(f.t, "", 0, true, true, NULL, 0);
    encodes(f.t, NULL, 0, true, true, NULL, 0);
    fixture_close(&f);
}

static void unused_pieces_are_taken_apart(void **state) {
    struct fixture f = by_hand((struct spoil){0});
    ENCODES(f.t, "xy", false, false, X, Y);
    ENCODES(f.t, "xyz", false, false, XYZ);     /* reached through the unused "xy" */
    ENCODES(f.t, "xyw", false, false, X, Y, W); /* unused, of an unused half */
    ENCODES(f.t, "xyxyz", false, false, X, Y, XYZ);
    fixture_close(&f);
}

static void bytes_without_piece(void **state) {
    struct fixture f = by_hand((struct spoil){0});
    ENCODES(f.t, "aA", false, false, A, BYTE_A);
    ENCODES(f.t, "D", false, false, UNK);
    ENCODES(f.t,
            "a\xff"
            "b",
            false, false, A, BYTE_FF, B);                     /* invalid */
    ENCODES(f.t, "\xf0\xff", false, false, BYTE_F0, BYTE_FF); /* lead byte without continuation */
    ENCODES(f.t,
            "\xf0"
            "ab",
            false, false, BYTE_F0, AB);                /* must not swallow what follows */
    ENCODES(f.t, "ab\xf0", false, false, AB, BYTE_F0); /* cut off at the end */
    ENCODES(f.t, "a\0b", false, false, A, BYTE_0, B);
    ENCODES(f.t, "\0", false, false, BYTE_0);
    ENCODES(f.t, "<0x41>", false, false, LT_0X4, ONE_GT); /* written out, it is just text */
    fixture_close(&f);
}

static void limits_of_utf8(void **state) {
    struct fixture f = by_hand((struct spoil){0});
    ENCODES(f.t, "\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf", false, false, U80, U7FF, U800, UD7FF);
    ENCODES(f.t, "\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", false, false, U10000, U10FFFF);
    ENCODES(f.t, "\xed\xa0\x80", false, false, UNK, UNK, UNK);
    ENCODES(f.t, "\xf4\x90\x80\x80", false, false, UNK, UNK, UNK, UNK);
    ENCODES(f.t, "\xe0\x9f\xbf", false, false, UNK, UNK, UNK);
    ENCODES(f.t, "\xe0\xa0\xc2\x80", false, false, UNK, UNK, U80);
    fixture_close(&f);
}

static void special_pieces(void **state) {
    struct fixture f = by_hand((struct spoil){0});
    ENCODES(f.t, "ab</s>ab", true, true, SPA, B, EOS, SPA, B); /* text after a special piece is prefixed again */
    ENCODES(f.t, "ab</s>ab", true, false, AB, EOS, SPA, B);
    ENCODES(f.t, "</s>", true, true, EOS);
    ENCODES(f.t, "</s>", false, false, LT_SLASH, S_GT); /* merges must not arrive at a control piece */
    ENCODES(f.t, "<s>a<unk></s>", true, false, BOS, SPA, UNK, EOS);
    ENCODES(f.t, "</s></s>", true, true, EOS, EOS);
    ENCODES(f.t, "a<i>b", false, false, A, IMG, SP, B); /* user-defined ones are cut out in any case */
    ENCODES(f.t, "<i><i><i>", false, true, IMG2, IMG);  /* the longest first */
    ENCODES(f.t, "ac1bb", false, false, A, QRS);        /* even when a shorter one begins before it */
    ENCODES(f.t, "ac1b", false, false, P1Q, SP, B);
    ENCODES(f.t, "[pad]", true, false, UNK, UNK, A, UNK, UNK); /* unused pieces are not special */
    fixture_close(&f);

    f = by_hand((struct spoil){.no_prefix = true});
    ENCODES(f.t, "ab</s>ab", true, true, AB, EOS, AB);
    ENCODES(f.t, " ab", false, true, SPA, B);
    fixture_close(&f);
}

static void encoding_appends(void **state) {
    struct fixture f = by_hand((struct spoil){0});
    struct token_list list = {0};
    assert_int_equal(token_list_push(&list, BOS, NULL), CANDID_OK);
    assert_int_equal(tokenizer_encode(f.t, "ab", 2, false, false, &list, NULL), CANDID_OK);
    assert_int_equal(tokenizer_encode(f.t, "c", 1, false, false, &list, NULL), CANDID_OK);
    check_ids("appended", &list, (const int32_t[]){BOS, AB, C}, 3);
    candid_error error = {0};
    assert_int_equal(tokenizer_encode(f.t, "c", SIZE_MAX, false, false, &list, &error), CANDID_ERROR_ARGUMENT);
    assert_int_equal(list.count, 3);
    token_list_free(&list);
    assert_null(list.ids);
    fixture_close(&f);
}

/* Scans for the best pair after each merge, which is what the heap must come to. */
static size_t encode_naively(const char *text, size_t size, int32_t *ids) {
    char parts[64][8];
    size_t n = 0;
    for (; n < size; n++) {
        parts[n][0] = text[n];
        parts[n][1] = '\0';
    }
    for (;;) {
        size_t best = SIZE_MAX;
        float score = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            const size_t left = strlen(parts[i]);
            for (int id = SP; id < N_PIECES; id++) {
                if (hand[id].type == 1 && strncmp(hand[id].text, parts[i], left) == 0 &&
                    strcmp(hand[id].text + left, parts[i + 1]) == 0 && (best == SIZE_MAX || hand[id].score > score)) {
                    best = i;
                    score = hand[id].score;
                }
            }
        }
        if (best == SIZE_MAX) {
            break;
        }
        memcpy(parts[best] + strlen(parts[best]), parts[best + 1], strlen(parts[best + 1]) + 1);
        n--;
        memmove(parts[best + 1], parts[best + 2], (n - best - 1) * sizeof parts[0]);
    }
    for (size_t i = 0; i < n; i++) {
        for (int id = SP; id < N_PIECES; id++) {
            if (strcmp(hand[id].text, parts[i]) == 0) {
                ids[i] = id;
            }
        }
    }
    return n;
}

static void equals_naive_merging(void **state) {
    struct fixture f = by_hand((struct spoil){0});
    uint64_t random = 4;
    for (int round = 0; round < 5000; round++) {
        char text[60];
        int32_t ids[60];
        const size_t size = next_random(&random) % sizeof text;
        for (size_t i = 0; i < size; i++) {
            text[i] = "abc"[next_random(&random) % 3];
        }
        const size_t n = encode_naively(text, size, ids);
        encodes(f.t, text, size, false, false, ids, n);
    }
    fixture_close(&f);
}

static void pieces(void **state) {
    struct fixture f = by_hand((struct spoil){0});
    char buffer[16];
    assert_int_equal(tokenizer_vocab_size(f.t), N_PIECES);
    assert_int_equal(tokenizer_piece(f.t, SPA, false, buffer, sizeof buffer), 2);
    assert_memory_equal(buffer, " a", 2);
    assert_int_equal(tokenizer_piece(f.t, BYTE_FF, false, buffer, sizeof buffer), 1);
    assert_int_equal((uint8_t)buffer[0], 0xff);
    assert_int_equal(tokenizer_piece(f.t, EOS, false, buffer, sizeof buffer), 0);
    assert_int_equal(tokenizer_piece(f.t, UNK, false, buffer, sizeof buffer), 0);
    assert_int_equal(tokenizer_piece(f.t, EOS, true, buffer, sizeof buffer), 4);
    assert_memory_equal(buffer, "</s>", 4);
    assert_int_equal(tokenizer_piece(f.t, IMG, false, buffer, sizeof buffer), 3);
    assert_memory_equal(buffer, "<i>", 3);
    memset(buffer, '#', sizeof buffer);
    assert_int_equal(tokenizer_piece(f.t, XYZ, false, buffer, 2), 3); /* cut, but the whole length told */
    assert_memory_equal(buffer, "xy#", 3);
    assert_int_equal(tokenizer_piece(f.t, EOS, true, buffer, 1), 4);
    assert_memory_equal(buffer, "<y", 2);
    assert_int_equal(tokenizer_piece(f.t, BYTE_A, false, NULL, 0), 1);
    assert_int_equal(tokenizer_piece(f.t, -1, true, buffer, sizeof buffer), 0);
    assert_int_equal(tokenizer_piece(f.t, N_PIECES, true, buffer, sizeof buffer), 0);
    fixture_close(&f);
}

static void decodes(const struct tokenizer *t, const char *text, const int32_t *ids, size_t n) {
    size_t size;
    char *decoded = decode(t, ids, n, &size);
    assert_string_equal(decoded, text);
    assert_int_equal(size, strlen(text));
    free(decoded);
}
#define DECODES(t, text, ...)                                                                                          \
    decodes(t, text, (const int32_t[]){__VA_ARGS__}, sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

static void decoding(void **state) {
    struct fixture f = by_hand((struct spoil){0});
    DECODES(f.t, "a a", SPA, SPA);
    DECODES(f.t, "a", BOS, SPA, EOS);         /* the prefix comes off after BOS too */
    DECODES(f.t, " a", SP2, A);               /* one space, not two */
    DECODES(f.t, "ab a", AB, SPA, UNK);       /* no prefix, nothing comes off */
    DECODES(f.t, "", BOS, EOS, -7, N_PIECES); /* nothing to see, ids that do not exist */
    DECODES(f.t, "A\xff", BYTE_A, BYTE_FF);
    decodes(f.t, "", NULL, 0);
    fixture_close(&f);
    f = by_hand((struct spoil){.no_prefix = true});
    DECODES(f.t, " a", SPA);
    fixture_close(&f);
}

static void special_ids(void **state) {
    struct fixture f = by_hand((struct spoil){0});
    assert_int_equal(tokenizer_bos(f.t), BOS);
    assert_int_equal(tokenizer_eos(f.t), EOS);
    assert_true(tokenizer_add_bos(f.t));
    assert_true(tokenizer_is_end(f.t, EOS));
    assert_true(tokenizer_is_end(f.t, EOT));
    assert_false(tokenizer_is_end(f.t, BOS));
    assert_false(tokenizer_is_end(f.t, -1));
    fixture_close(&f);

    f = by_hand((struct spoil){.no_bos = true, .no_unknown_key = true});
    assert_int_equal(tokenizer_bos(f.t), 1); /* SentencePiece's own, which is a control piece here */
    assert_true(tokenizer_add_bos(f.t));
    ENCODES(f.t, "D", false, false, UNK);
    fixture_close(&f);

    struct gguf_writer *w = hand_file((struct spoil){0});
    gw_bool(w, "tokenizer.ggml.add_bos_token", false);
    candid_error error = {0};
    assert_int_equal(fixture_open(w, &f, &error), CANDID_OK);
    assert_false(tokenizer_add_bos(f.t));
    assert_int_equal(tokenizer_bos(f.t), BOS);
    fixture_close(&f);
}

/* ---- broken metadata ---- */

static void refused(struct spoil s, candid_status status, const char *said) {
    struct fixture f;
    candid_error error = {0};
    const candid_status found = fixture_open(hand_file(s), &f, &error);
    if (found != status || !strstr(error.message, said)) {
        fail_msg("expected %s with \"%s\", found %s: %s", candid_status_name(status), said, candid_status_name(found),
                 error.message);
    }
    assert_non_null(strstr(error.message, "memory.gguf"));
    assert_null(f.t);
    fixture_close(&f);
}

static void broken_metadata(void **state) {
    const candid_status format = CANDID_ERROR_FORMAT;
    refused((struct spoil){.model = "gpt2"}, CANDID_ERROR_UNSUPPORTED, "gpt2");
    refused((struct spoil){.no_model = true}, format, "tokenizer.ggml.model");
    refused((struct spoil){.no_tokens = true}, format, "tokenizer.ggml.tokens");
    refused((struct spoil){.no_scores = true}, format, "tokenizer.ggml.scores");
    refused((struct spoil){.no_types = true}, format, "tokenizer.ggml.token_type");
    refused((struct spoil){.tokens_are_ints = true}, format, "array of strings");
    refused((struct spoil){.scores_are_ints = true}, format, "array of floats");
    refused((struct spoil){.short_scores = 1}, format, "tokenizer.ggml.scores");
    refused((struct spoil){.short_types = 3}, format, "tokenizer.ggml.token_type");
    refused((struct spoil){.score = 1.0f / 0.0f}, format, "finite");
    refused((struct spoil){.score = 0.0f / 0.0f}, format, "finite");
    refused((struct spoil){.type = 7}, format, "token_type");
    refused((struct spoil){.type = -1}, format, "token_type");
    refused((struct spoil){.type = 6}, format, "<0xXX>"); /* "c" is no byte piece */
    refused((struct spoil){.byte_text = "<0x4G>"}, format, "<0xXX>");
    refused((struct spoil){.byte_text = "<0x4>"}, format, "<0xXX>");
    refused((struct spoil){.bos = N_PIECES}, format, "bos_token_id");
    refused((struct spoil){.eos = UINT32_MAX}, format, "eos_token_id");
    refused((struct spoil){.eot = N_PIECES}, format, "eot_token_id");
    tokenizer_free(NULL);
    token_list_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_sentencepiece),
        cmocka_unit_test(random_unicode_survives),
        cmocka_unit_test(random_bytes_survive),
        cmocka_unit_test(long_texts),
        cmocka_unit_test(merges),
        cmocka_unit_test(unused_pieces_are_taken_apart),
        cmocka_unit_test(bytes_without_piece),
        cmocka_unit_test(limits_of_utf8),
        cmocka_unit_test(special_pieces),
        cmocka_unit_test(encoding_appends),
        cmocka_unit_test(equals_naive_merging),
        cmocka_unit_test(pieces),
        cmocka_unit_test(decoding),
        cmocka_unit_test(special_ids),
        cmocka_unit_test(broken_metadata),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
