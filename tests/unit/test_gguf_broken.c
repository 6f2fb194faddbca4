/*
 * GGUF reader: every malformed file gives its status and one sentence that names the file and the key or tensor, what
 * was expected and what was found. The files are made by the writer with lies, or by changing bytes of a finished one.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "../support/every_kind.h"
#include "model/gguf.h"

#define FILE_NAME "broken.gguf"

/* ---- broken files ---- */

struct broken {
    const char *what;
    void (*write)(struct gguf_writer *w);         /* NULL: one key, then add_tensors */
    void (*change)(uint8_t *bytes, size_t *size); /* of the finished file; may be NULL */
    candid_status status;
    const char *needles[3]; /* all must be in the message, as must the file name */
};

static void put_u32(uint8_t *bytes, size_t at, uint32_t v) {
    memcpy(bytes + at, &v, sizeof v);
}
static void put_u64(uint8_t *bytes, size_t at, uint64_t v) {
    memcpy(bytes + at, &v, sizeof v);
}
/* Where `text` first stands in the file. */
static size_t find_bytes(const uint8_t *bytes, size_t size, const char *text) {
    const uint8_t *p = memmem(bytes, size, text, strlen(text));
    assert_non_null(p);
    return (size_t)(p - bytes);
}
static void one_key(struct gguf_writer *w) {
    gw_str(w, "general.name", "x");
    add_tensors(w);
}

/* header */
static void make_empty(uint8_t *b, size_t *n) {
    *n = 0;
}
static void make_short_magic(uint8_t *b, size_t *n) {
    *n = 3;
}
static void make_text(uint8_t *b, size_t *n) {
    memcpy(b, "\nHe\x01", 4);
}
static void make_v1(uint8_t *b, size_t *n) {
    put_u32(b, 4, 1);
}
static void make_v4(uint8_t *b, size_t *n) {
    put_u32(b, 4, 4);
}
static void make_v0(uint8_t *b, size_t *n) {
    put_u32(b, 4, 0);
}
static void make_big_endian(uint8_t *b, size_t *n) {
    put_u32(b, 4, 0x03000000);
}
static void cut_version(uint8_t *b, size_t *n) {
    *n = 6;
}
static void cut_counts(uint8_t *b, size_t *n) {
    *n = 20;
}
static void many_tensors(uint8_t *b, size_t *n) {
    put_u64(b, 8, UINT64_MAX);
}
static void too_many_tensors(uint8_t *b, size_t *n) {
    put_u64(b, 8, *n / 33 + 1);
}
static void many_keys(uint8_t *b, size_t *n) {
    put_u64(b, 16, (uint64_t)1 << 60);
}
/* keys */
static void long_key_length(uint8_t *b, size_t *n) {
    put_u64(b, 24, UINT64_MAX);
}
static void empty_key(struct gguf_writer *w) {
    gw_u32(w, "", 1);
    add_tensors(w);
}
static void nul_in_key(uint8_t *b, size_t *n) {
    b[find_bytes(b, *n, "general.name") + 7] = 0;
}
static void huge_key(struct gguf_writer *w) {
    char *key = malloc(65537);
    assert_non_null(key);
    memset(key, 'k', 65536);
    key[65536] = 0;
    gw_u32(w, key, 1);
    free(key);
}
static void bad_value_type(struct gguf_writer *w) {
    gw_raw(w, "odd.key", 13, "12345678", 8);
    add_tensors(w);
}
static void long_string(uint8_t *b, size_t *n) {
    put_u64(b, find_bytes(b, *n, "general.name") + 16, (uint64_t)1 << 40);
}
static void twice(struct gguf_writer *w) {
    gw_u32(w, "same.key", 1);
    gw_u32(w, "other", 1);
    gw_u32(w, "same.key", 2);
}
static void bool_of_two(struct gguf_writer *w) {
    gw_raw(w, "a.flag", 7, "\2", 1);
    add_tensors(w);
}
static void bools_of_two(struct gguf_writer *w) {
    gw_arr(w, "some.flags", 7, 2);
    gw_put(&w->kv, "\0\3", 2);
    add_tensors(w);
}
static void nested(struct gguf_writer *w) {
    gw_arr(w, "deep", 9, 1);
    add_tensors(w);
}
static void bad_element(struct gguf_writer *w) {
    gw_arr(w, "an.array", 77, 1);
    add_tensors(w);
}
static void long_array(struct gguf_writer *w) {
    gw_arr(w, "an.array", 6, (uint64_t)1 << 61);
    add_tensors(w);
}
static void long_strings(struct gguf_writer *w) {
    gw_arr(w, "an.array", 8, 1000000);
    add_tensors(w);
}
static void cut_in_strings(struct gguf_writer *w) {
    gw_arr(w, "an.array", 8, 3);
    gw_put_string(&w->kv, "abc");
    gw_put_u64(&w->kv, (uint64_t)1 << 33);
    add_tensors(w);
}
static void cut_in_value(struct gguf_writer *w) {
    gw_u64(w, "last.key", 1);
}
static void cut_last_value(uint8_t *b, size_t *n) {
    *n = 24 + 8 + 8 + 4 + 7;
}
/* alignment */
static void odd_alignment(struct gguf_writer *w) {
    gw_u32(w, "general.alignment", 48);
    add_tensors(w);
}
static void small_alignment(struct gguf_writer *w) {
    gw_u32(w, "general.alignment", 4);
    w->alignment = 4;
    add_tensors(w);
}
static void zero_alignment(struct gguf_writer *w) {
    gw_u32(w, "general.alignment", 0);
    add_tensors(w);
}
static void text_alignment(struct gguf_writer *w) {
    gw_str(w, "general.alignment", "32");
    add_tensors(w);
}
static void lying_alignment(struct gguf_writer *w) {
    gw_u32(w, "general.alignment", 64);
    add_tensors(w);
}
/* tensors */
static void long_name(struct gguf_writer *w) {
    gw_tensor(w, "a234567890123456789012345678901234567890123456789012345678901234", 0, 1, (const int64_t[]){8},
              f32_data, 32);
}
static void no_name(struct gguf_writer *w) {
    gw_tensor(w, "", 0, 1, (const int64_t[]){8}, f32_data, 32);
}
static void dims(struct gguf_writer *w, const char *name, uint32_t type, uint32_t n_dims, const int64_t *ne) {
    gw_tensor(w, name, type, n_dims, ne, f32_data, 32);
    gw_put_zeros(&w->data, 4096);
}
static void no_dims(struct gguf_writer *w) {
    dims(w, "flat.weight", 0, 0, NULL);
}
static void five_dims(struct gguf_writer *w) {
    dims(w, "deep.weight", 0, 5, (const int64_t[]){2, 1, 1, 1, 1});
}
static void zero_dim(struct gguf_writer *w) {
    dims(w, "x.weight", 0, 2, (const int64_t[]){4, 0});
}
static void negative_dim(struct gguf_writer *w) {
    dims(w, "x.weight", 0, 2, (const int64_t[]){4, -2});
}
static void overflowing(struct gguf_writer *w) {
    dims(w, "x.weight", 0, 4, (const int64_t[]){1 << 16, 1 << 16, 1 << 16, 1 << 16});
}
static void overflowing_one(struct gguf_writer *w) {
    dims(w, "x.weight", 0, 1, (const int64_t[]){INT64_MAX});
}
static void exabytes(struct gguf_writer *w) {
    dims(w, "x.weight", 0, 2, (const int64_t[]){1 << 30, 1 << 29});
}
static void q2_k(struct gguf_writer *w) {
    dims(w, "x.weight", 10, 1, (const int64_t[]){256});
}
static void integers(struct gguf_writer *w) {
    dims(w, "x.weight", 26, 1, (const int64_t[]){8});
}
static void dead_type(struct gguf_writer *w) {
    dims(w, "x.weight", 4, 1, (const int64_t[]){8});
}
static void foreign_type(struct gguf_writer *w) {
    dims(w, "x.weight", 337, 1, (const int64_t[]){256});
}
static void short_row(struct gguf_writer *w) {
    dims(w, "x.weight", 8, 2, (const int64_t[]){48, 2});
}
static void short_k_row(struct gguf_writer *w) {
    dims(w, "x.weight", 14, 2, (const int64_t[]){128, 2});
}
static void same_name(struct gguf_writer *w) {
    add_tensors(w);
    gw_tensor(w, "b", 0, 1, (const int64_t[]){8}, f32_data, 32);
}
static void offsets(struct gguf_writer *w, uint64_t second) {
    gw_tensor_info(w, "first", 0, 1, (const int64_t[]){5}, 0);
    gw_tensor_info(w, "second", 0, 1, (const int64_t[]){8}, second);
    gw_put_zeros(&w->data, 4096);
}
static void gap(struct gguf_writer *w) {
    offsets(w, 64);
}
static void overlap(struct gguf_writer *w) {
    offsets(w, 0);
}
static void unpadded(struct gguf_writer *w) {
    offsets(w, 20);
}
static void far_away(struct gguf_writer *w) {
    offsets(w, UINT64_MAX - 31);
}
static void first_not_zero(struct gguf_writer *w) {
    gw_tensor_info(w, "first", 0, 1, (const int64_t[]){8}, 32);
    gw_put_zeros(&w->data, 4096);
}
static void cut_data(uint8_t *b, size_t *n) {
    *n -= 32 - 11;
} /* "d" has 12 bytes in its last 32 */
static void cut_all_data(uint8_t *b, size_t *n) {
    *n -= 32 + 96 + 160 + 32 + 1;
}
static void long_key_first(struct gguf_writer *w) { /* so that the header's count of tensors stays credible */
    char text[200];
    memset(text, '.', sizeof text);
    strcpy(text + sizeof text - 8, "THE END");
    gw_str(w, "long.enough", text);
    add_tensors(w);
}
static void cut_infos(uint8_t *b, size_t *n) {
    *n = find_bytes(b, *n, "THE END") + 7 + 20;
}

#define TENSOR(name) "tensor " name

static const struct broken broken_files[] = {
    {"empty", NULL, make_empty, CANDID_ERROR_FORMAT, {"expected a GGUF file", "empty"}},
    {"three bytes", NULL, make_short_magic, CANDID_ERROR_FORMAT, {"\"GGUF\"", "begins with \"GGU\""}},
    {"text", NULL, make_text, CANDID_ERROR_FORMAT, {"expected a GGUF file", "begins with \"?He?\""}},
    {"version 1", NULL, make_v1, CANDID_ERROR_UNSUPPORTED, {"version 2 or 3", "found version 1"}},
    {"version 4", NULL, make_v4, CANDID_ERROR_UNSUPPORTED, {"version 2 or 3", "found version 4"}},
    {"version 0", NULL, make_v0, CANDID_ERROR_FORMAT, {"version 2 or 3", "found version 0"}},
    {"big endian", NULL, make_big_endian, CANDID_ERROR_UNSUPPORTED, {"little-endian", "big-endian"}},
    {"cut in the version", NULL, cut_version, CANDID_ERROR_FORMAT, {"truncated", "the version"}},
    {"cut in the counts", NULL, cut_counts, CANDID_ERROR_FORMAT, {"truncated", "key count"}},
    {"2^64-1 tensors", NULL, many_tensors, CANDID_ERROR_FORMAT, {"truncated", "18446744073709551615 tensors"}},
    {"more tensors than fit", NULL, too_many_tensors, CANDID_ERROR_FORMAT, {"truncated", " tensors"}},
    {"2^60 keys", NULL, many_keys, CANDID_ERROR_FORMAT, {"truncated", "1152921504606846976 keys"}},

    {"key of 2^64-1 bytes", NULL, long_key_length, CANDID_ERROR_FORMAT, {"truncated", "name of key 0"}},
    {"empty key", empty_key, NULL, CANDID_ERROR_FORMAT, {"key 0", "1 to 65535 bytes", "found 0"}},
    {"NUL in a key", NULL, nul_in_key, CANDID_ERROR_FORMAT, {"key 0", "general?name", "NUL"}},
    {"huge key", huge_key, NULL, CANDID_ERROR_FORMAT, {"key 0", "kkkk\u2026", "found 65536"}},
    {"value type 13", bad_value_type, NULL, CANDID_ERROR_FORMAT, {"key odd.key", "0 to 12", "found 13"}},
    {"string of 2^40 bytes",
     NULL,
     long_string,
     CANDID_ERROR_FORMAT,
     {"truncated", "key general.name", "1099511627776"}},
    {"key twice", twice, NULL, CANDID_ERROR_FORMAT, {"unique", "key same.key", "twice"}},
    {"bool 2", bool_of_two, NULL, CANDID_ERROR_FORMAT, {"key a.flag", "0 or 1", "found 2"}},
    {"bool 3 in an array", bools_of_two, NULL, CANDID_ERROR_FORMAT, {"key some.flags", "0 or 1", "found 3"}},
    {"array of arrays", nested, NULL, CANDID_ERROR_UNSUPPORTED, {"key deep", "plain values", "array of arrays"}},
    {"element type 77", bad_element, NULL, CANDID_ERROR_FORMAT, {"key an.array", "0 to 12", "found 77"}},
    {"array of 2^61 floats",
     long_array,
     NULL,
     CANDID_ERROR_FORMAT,
     {"truncated", "key an.array", "2305843009213693952"}},
    {"array of 10^6 strings", long_strings, NULL, CANDID_ERROR_FORMAT, {"truncated", "key an.array", "1000000"}},
    {"string array with a long string",
     cut_in_strings,
     NULL,
     CANDID_ERROR_FORMAT,
     {"truncated", "key an.array", "8589934592"}},
    {"cut in a value",
     cut_in_value,
     cut_last_value,
     CANDID_ERROR_FORMAT,
     {"truncated", "key last.key", "needs 8 bytes"}},

    {"alignment 48", odd_alignment, NULL, CANDID_ERROR_FORMAT, {"key general.alignment", "power of two", "found 48"}},
    {"alignment 4", small_alignment, NULL, CANDID_ERROR_FORMAT, {"key general.alignment", "from 8", "found 4"}},
    {"alignment 0", zero_alignment, NULL, CANDID_ERROR_FORMAT, {"key general.alignment", "found u32 0"}},
    {"alignment as text",
     text_alignment,
     NULL,
     CANDID_ERROR_FORMAT,
     {"key general.alignment", "integer", "found string \"32\""}},
    {"padded for another alignment",
     lying_alignment,
     NULL,
     CANDID_ERROR_FORMAT,
     {TENSOR("b"), "offset 64", "found 32"}},

    {"name of 64 bytes", long_name, NULL, CANDID_ERROR_FORMAT, {"tensor 0", "1 to 63 bytes", "found 64"}},
    {"empty name", no_name, NULL, CANDID_ERROR_FORMAT, {"tensor 0", "1 to 63 bytes", "found 0"}},
    {"no dimensions", no_dims, NULL, CANDID_ERROR_FORMAT, {TENSOR("flat.weight"), "1 to 4", "found 0"}},
    {"five dimensions", five_dims, NULL, CANDID_ERROR_FORMAT, {TENSOR("deep.weight"), "1 to 4", "found 5"}},
    {"dimension 0", zero_dim, NULL, CANDID_ERROR_FORMAT, {TENSOR("x.weight"), "positive dimension 1", "found 0"}},
    {"dimension -2", negative_dim, NULL, CANDID_ERROR_FORMAT, {TENSOR("x.weight"), "positive dimension 1", "found -2"}},
    {"2^64 values", overflowing, NULL, CANDID_ERROR_FORMAT, {TENSOR("x.weight"), "fewer than 2^60 values"}},
    {"2^63-1 values", overflowing_one, NULL, CANDID_ERROR_FORMAT, {TENSOR("x.weight"), "fewer than 2^60 values"}},
    {"2^61 bytes", exabytes, NULL, CANDID_ERROR_FORMAT, {"truncated", TENSOR("x.weight"), "2305843009213693952 bytes"}},
    {"type Q2_K", q2_k, NULL, CANDID_ERROR_UNSUPPORTED, {TENSOR("x.weight"), "Q6_K", "found Q2_K"}},
    {"type I32", integers, NULL, CANDID_ERROR_UNSUPPORTED, {TENSOR("x.weight"), "Q6_K", "found I32"}},
    {"type 4", dead_type, NULL, CANDID_ERROR_UNSUPPORTED, {TENSOR("x.weight"), "unknown type id 4"}},
    {"type 337", foreign_type, NULL, CANDID_ERROR_UNSUPPORTED, {TENSOR("x.weight"), "unknown type id 337"}},
    {"row of 48 in Q8_0",
     short_row,
     NULL,
     CANDID_ERROR_FORMAT,
     {TENSOR("x.weight"), "32 values of a Q8_0", "rows of 48"}},
    {"row of 128 in Q6_K",
     short_k_row,
     NULL,
     CANDID_ERROR_FORMAT,
     {TENSOR("x.weight"), "256 values of a Q6_K", "rows of 128"}},
    {"tensor twice", same_name, NULL, CANDID_ERROR_FORMAT, {"unique", TENSOR("b"), "twice"}},
    {"gap between tensors", gap, NULL, CANDID_ERROR_FORMAT, {TENSOR("second"), "offset 32", "found 64"}},
    {"overlapping tensors", overlap, NULL, CANDID_ERROR_FORMAT, {TENSOR("second"), "offset 32", "found 0"}},
    {"tensor without padding", unpadded, NULL, CANDID_ERROR_FORMAT, {TENSOR("second"), "offset 32", "found 20"}},
    {"offset near 2^64", far_away, NULL, CANDID_ERROR_FORMAT, {TENSOR("second"), "found 18446744073709551584"}},
    {"first offset not 0", first_not_zero, NULL, CANDID_ERROR_FORMAT, {TENSOR("first"), "offset 0", "found 32"}},
    {"data cut in the last tensor", NULL, cut_data, CANDID_ERROR_FORMAT, {"truncated", TENSOR("d"), "12 bytes"}},
    {"data cut before its start", NULL, cut_all_data, CANDID_ERROR_FORMAT, {"truncated", TENSOR("a"), "32 bytes"}},
    {"infos cut", long_key_first, cut_infos, CANDID_ERROR_FORMAT, {"truncated", TENSOR("a"), "needs 8 bytes"}},
};

static void check_message(const struct broken *c, const char *file, candid_status status, const candid_error *error) {
    bool good = status == c->status && error->status == c->status && strstr(error->message, file) &&
                !strchr(error->message, '\n');
    for (size_t i = 0; i < 3 && c->needles[i]; i++) {
        good = good && strstr(error->message, c->needles[i]);
    }
    if (!good) {
        fail_msg("%s: unexpected status %d, message \"%s\"", c->what, (int)status, error->message);
    }
}

static void refuses_broken_files(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof broken_files / sizeof *broken_files; i++) {
        const struct broken *c = &broken_files[i];
        struct gguf_writer *w = gw_open(NULL);
        (c->write ? c->write : one_key)(w);
        size_t size;
        uint8_t *bytes = gw_take(w, &size);
        if (c->change) {
            c->change(bytes, &size);
        }
        /* A copy of the exact size, so that the sanitizer sees a read past the end. */
        void *exact = NULL;
        assert_int_equal(posix_memalign(&exact, 32, size ? size : 1), 0);
        memcpy(exact, bytes, size);
        free(bytes);
        struct gguf *g = NULL;
        candid_error error = {0};
        candid_status status = gguf_open_memory(exact, size, FILE_NAME, &g, &error);
        check_message(c, FILE_NAME, status, &error);
        assert_null(g);
        assert_int_equal(gguf_open_memory(exact, size, FILE_NAME, &g, NULL), c->status); /* error may be NULL */

        FILE *f = fopen(FILE_NAME, "wb");
        assert_non_null(f);
        assert_int_equal(fwrite(exact, 1, size, f), size);
        assert_int_equal(fclose(f), 0);
        memset(&error, 0, sizeof error);
        status = gguf_open(FILE_NAME, &g, &error);
        check_message(c, FILE_NAME, status, &error);
        assert_null(g);
        free(exact);
    }
    remove(FILE_NAME);
}

/* Cutting a good file anywhere but in the padding after the last tensor is an error, never a crash. */
static void refuses_every_truncation(void **state) {
    (void)state;
    struct gguf_writer *w = gw_open(NULL);
    add_one_of_each(w);
    add_tensors(w);
    size_t size;
    uint8_t *bytes = gw_take(w, &size);
    for (size_t cut = 0; cut < size - 20; cut++) { /* "d" ends 20 bytes before the end */
        void *exact = NULL;
        assert_int_equal(posix_memalign(&exact, 32, cut ? cut : 1), 0);
        memcpy(exact, bytes, cut);
        struct gguf *g = NULL;
        candid_error error = {0};
        if (gguf_open_memory(exact, cut, FILE_NAME, &g, &error) != CANDID_ERROR_FORMAT) {
            fail_msg("cut at %zu of %zu: status %d", cut, size, (int)error.status);
        }
        assert_non_null(strstr(error.message, FILE_NAME));
        free(exact);
    }
    free(bytes);
}

static void files_that_cannot_be_opened(void **state) {
    (void)state;
    struct gguf *g = NULL;
    candid_error error = {0};
    assert_int_equal(gguf_open("no/such/file.gguf", &g, &error), CANDID_ERROR_IO);
    assert_non_null(strstr(error.message, "no/such/file.gguf"));
    assert_non_null(strstr(error.message, strerror(ENOENT)));
    assert_int_equal(gguf_open(".", &g, &error), CANDID_ERROR_IO);
    assert_non_null(strstr(error.message, "directory"));
    assert_int_equal(mkfifo("fifo.gguf", 0600), 0);
    assert_int_equal(gguf_open("fifo.gguf", &g, &error), CANDID_ERROR_IO); /* and does not wait for a writer */
    assert_non_null(strstr(error.message, "not a regular file"));
    remove("fifo.gguf");
    assert_int_equal(gguf_open(NULL, &g, &error), CANDID_ERROR_ARGUMENT);
    _Alignas(32) static const uint8_t bytes[64] = "GGUF";
    assert_int_equal(gguf_open_memory(bytes + 8, 32, "odd", &g, &error), CANDID_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "32-byte aligned"));
    assert_int_equal(gguf_open_memory(NULL, 32, "null", &g, &error), CANDID_ERROR_ARGUMENT);
    assert_null(g);
}

/* The end of a very long path stays in the message, and so does what is wrong. */
static void long_paths(void **state) {
    (void)state;
    char name[700];
    memset(name, 'p', sizeof name);
    strcpy(name + sizeof name - 12, "/model.gguf");
    struct gguf *g = NULL;
    candid_error error = {0};
    _Alignas(32) static const uint8_t bytes[32] = "GGML";
    assert_int_equal(gguf_open_memory(bytes, 32, name, &g, &error), CANDID_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "pp/model.gguf: expected a GGUF file"));
    assert_non_null(strstr(error.message, "\"GGML\""));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_broken_files),
        cmocka_unit_test(refuses_every_truncation),
        cmocka_unit_test(files_that_cannot_be_opened),
        cmocka_unit_test(long_paths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
