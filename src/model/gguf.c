/*
 * GGUF reader: maps a file and turns header, keys and tensor infos into tables.
 *
 * Everything in the file is suspect. Counts are compared with the bytes that are left before anything is allocated for
 * them, so a file makes us allocate only a small multiple of its own size.
 */
#include "model/gguf.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/status.h"
#include "core/text.h"
#include "model/gguf_internal.h"
#include "model/gguf_keys.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "GGUF data is used in place: little-endian hosts only");

/* Limits of the format (GGUF specification, ggml). */
#define MAX_KEY_BYTES  65535
#define MAX_NAME_BYTES 63
#define MAX_DIMS       4
/* Smallest encodings: key length + 1 byte + type + 1 byte; name length + 1 byte + n_dims + ne[0] + type + offset. */
#define MIN_VALUE_BYTES   (8 + 1 + 4 + 1)
#define MIN_TENSOR_BYTES  (8 + 1 + 4 + 8 + 4 + 8)
#define DEFAULT_ALIGNMENT 32
#define MIN_ALIGNMENT     8 /* the specification wants multiples of 8; we read floats in place */

/* ---- arena: pointers into it stay valid until gguf_close ---- */

struct gguf_arena_block {
    struct gguf_arena_block *next;
    size_t used, capacity;
    _Alignas(8) char bytes[];
};

static void *arena_alloc(struct gguf *g, size_t size) {
    size = (size + 7) & ~(size_t)7;
    struct gguf_arena_block *block = g->arena;
    if (!block || block->capacity - block->used < size) {
        const size_t capacity = size > 16384 ? size : 16384;
        block = malloc(sizeof *block + capacity);
        if (!block) {
            return NULL;
        }
        *block = (struct gguf_arena_block){.next = g->arena, .capacity = capacity};
        g->arena = block;
    }
    void *p = block->bytes + block->used;
    block->used += size;
    return p;
}

/* A NUL-terminated copy. */
static candid_status arena_string(struct gguf *g, const char *bytes, size_t size, const char **out,
                                  candid_error *error) {
    char *copy = arena_alloc(g, size + 1);
    if (!copy) {
        return fail_memory(error, "a string of a GGUF file", size + 1);
    }
    memcpy(copy, bytes, size);
    copy[size] = '\0';
    *out = copy;
    return CANDID_OK;
}

/* ---- reading ---- */

struct reader {
    struct gguf *g;
    size_t pos; /* <= g->size */
    candid_error *error;
};

static size_t bytes_left(const struct reader *r) {
    return r->g->size - r->pos;
}

static candid_status truncated(const struct reader *r, const char *what, uint64_t need) {
    return fail(r->error, CANDID_ERROR_FORMAT,
                "%s: truncated: %s needs %" PRIu64 " bytes at offset %zu, found %zu before the end of the file",
                r->g->path, what, need, r->pos, bytes_left(r));
}

static candid_status read_bytes(struct reader *r, void *out, size_t size, const char *what) {
    if (bytes_left(r) < size) {
        return truncated(r, what, size);
    }
    memcpy(out, r->g->data + r->pos, size);
    r->pos += size;
    return CANDID_OK;
}

static candid_status read_u32(struct reader *r, uint32_t *out, const char *what) {
    return read_bytes(r, out, sizeof *out, what);
}

static candid_status read_u64(struct reader *r, uint64_t *out, const char *what) {
    return read_bytes(r, out, sizeof *out, what);
}

/* A string in place. */
static candid_status read_string(struct reader *r, const char **out, size_t *size, const char *what) {
    uint64_t length = 0;
    TRY(read_u64(r, &length, what));
    if (length > bytes_left(r)) {
        return truncated(r, what, length);
    }
    *out = (const char *)r->g->data + r->pos;
    *size = (size_t)length;
    r->pos += (size_t)length;
    return CANDID_OK;
}

/* A key or tensor name: 1..max bytes without NUL, copied. */
static candid_status read_name(struct reader *r, const char *kind, size_t index, size_t max, const char **out) {
    char what[64];
    snprintf(what, sizeof what, "the name of %s %zu", kind, index);
    const char *bytes = NULL;
    size_t size = 0;
    TRY(read_string(r, &bytes, &size, what));
    struct printable text;
    if (size == 0 || size > max) {
        return fail(r->error, CANDID_ERROR_FORMAT, "%s: %s %zu (\"%s\"): expected a name of 1 to %zu bytes, found %zu",
                    r->g->path, kind, index, printable(&text, bytes, size), max, size);
    }
    if (memchr(bytes, '\0', size)) {
        return fail(r->error, CANDID_ERROR_FORMAT, "%s: %s %zu (\"%s\"): expected a name without NUL bytes, found one",
                    r->g->path, kind, index, printable(&text, bytes, size));
    }
    return arena_string(r->g, bytes, size, out, r->error);
}

/* ---- keys ---- */

static candid_status check_bools(const struct reader *r, const struct gguf_value *v, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (v->data[i] > 1) {
            struct printable key;
            return fail(r->error, CANDID_ERROR_FORMAT, "%s: key %s: expected 0 or 1 in a bool, found %u", r->g->path,
                        printable_string(&key, v->key), v->data[i]);
        }
    }
    return CANDID_OK;
}

static candid_status read_array(struct reader *r, struct gguf_value *v, const char *what) {
    struct printable key;
    uint32_t element = 0;
    TRY(read_u32(r, &element, what));
    TRY(read_u64(r, &v->count, what));
    v->element = (enum gguf_value_type)element;
    if (element == GGUF_ARRAY) {
        return fail(r->error, CANDID_ERROR_UNSUPPORTED,
                    "%s: key %s: expected an array of plain values, found an array "
                    "of arrays",
                    r->g->path, printable_string(&key, v->key));
    }
    if (element > GGUF_F64) {
        return fail(r->error, CANDID_ERROR_FORMAT, "%s: key %s: expected an element type from 0 to 12, found %" PRIu32,
                    r->g->path, printable_string(&key, v->key), element);
    }
    const size_t size = gguf_value_size(v->element), least = size ? size : 8; /* a string has at least its length */
    if (v->count > bytes_left(r) / least) {
        return fail(r->error, CANDID_ERROR_FORMAT,
                    "%s: truncated: key %s claims %" PRIu64 " array elements, found %zu bytes before the end of the "
                    "file",
                    r->g->path, printable_string(&key, v->key), v->count, bytes_left(r));
    }
    v->data = r->g->data + r->pos;
    if (size) {
        r->pos += size * (size_t)v->count;
        return v->element == GGUF_BOOL ? check_bools(r, v, (size_t)v->count) : CANDID_OK;
    }
    v->offsets = arena_alloc(r->g, (size_t)v->count * sizeof *v->offsets);
    if (!v->offsets) {
        return fail_memory(r->error, "the index of a string array", (size_t)v->count * sizeof *v->offsets);
    }
    for (size_t i = 0; i < v->count; i++) {
        const char *bytes;
        size_t length;
        v->offsets[i] = r->pos;
        TRY(read_string(r, &bytes, &length, what));
    }
    return CANDID_OK;
}

static candid_status read_value(struct reader *r, size_t index, struct gguf_value *v) {
    TRY(read_name(r, "key", index, MAX_KEY_BYTES, &v->key));
    struct printable key;
    char what[128];
    snprintf(what, sizeof what, "key %s", printable_string(&key, v->key));
    uint32_t type = 0;
    TRY(read_u32(r, &type, what));
    v->type = (enum gguf_value_type)type;
    if (type > GGUF_F64) {
        return fail(r->error, CANDID_ERROR_FORMAT, "%s: key %s: expected a value type from 0 to 12, found %" PRIu32,
                    r->g->path, key.s, type);
    }
    if (type == GGUF_ARRAY) {
        return read_array(r, v, what);
    }
    if (type == GGUF_STRING) {
        const char *bytes = NULL;
        size_t size = 0;
        TRY(read_string(r, &bytes, &size, what));
        v->data = (const uint8_t *)bytes;
        v->count = size;
        return memchr(bytes, '\0', size) ? CANDID_OK : arena_string(r->g, bytes, size, &v->string, r->error);
    }
    const size_t size = gguf_value_size(v->type);
    if (bytes_left(r) < size) {
        return truncated(r, what, size);
    }
    v->data = r->g->data + r->pos;
    r->pos += size;
    return type == GGUF_BOOL ? check_bools(r, v, 1) : CANDID_OK;
}

/* ---- names ---- */

static int compare_names(const void *a, const void *b) {
    return strcmp(((const struct gguf_name *)a)->name, ((const struct gguf_name *)b)->name);
}

/* Sorts the names and refuses duplicates. */
static candid_status index_names(const struct reader *r, struct gguf_name *names, size_t n, const char *kind) {
    if (n > 1) {
        qsort(names, n, sizeof *names, compare_names);
    }
    for (size_t i = 1; i < n; i++) {
        if (strcmp(names[i - 1].name, names[i].name) == 0) {
            struct printable text;
            return fail(r->error, CANDID_ERROR_FORMAT, "%s: expected unique names, found %s %s twice", r->g->path, kind,
                        printable_string(&text, names[i].name));
        }
    }
    return CANDID_OK;
}

size_t gguf_find_name(const struct gguf_name *names, size_t n, const char *name) {
    const struct gguf_name wanted = {name, 0};
    const struct gguf_name *found = n ? bsearch(&wanted, names, n, sizeof *names, compare_names) : NULL;
    return found ? found->index : SIZE_MAX;
}

/* ---- tensors ---- */

static candid_status check_type(const struct reader *r, const struct tensor *t) {
    if (quant_type_supported(t->type)) {
        return CANDID_OK;
    }
    struct printable name;
    printable_string(&name, t->name);
    const char *type_name = quant_type_name(t->type);
    if (type_name) {
        return fail(r->error, CANDID_ERROR_UNSUPPORTED,
                    "%s: tensor %s: expected type F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q5_K or Q6_K, found %s", r->g->path,
                    name.s, type_name);
    }
    return fail(r->error, CANDID_ERROR_UNSUPPORTED,
                "%s: tensor %s: expected type F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q5_K or Q6_K, found unknown type id "
                "%" PRIu32,
                r->g->path, name.s, t->type);
}

/* Reads one tensor info and computes the size; *offset is where the data starts in the data section. */
static candid_status read_tensor(struct reader *r, size_t index, struct tensor *t, uint64_t *offset) {
    TRY(read_name(r, "tensor", index, MAX_NAME_BYTES, &t->name));
    struct printable name;
    char what[128];
    snprintf(what, sizeof what, "tensor %s", printable_string(&name, t->name));
    uint32_t n_dims = 0;
    TRY(read_u32(r, &n_dims, what));
    if (n_dims < 1 || n_dims > MAX_DIMS) {
        return fail(r->error, CANDID_ERROR_FORMAT, "%s: tensor %s: expected 1 to %d dimensions, found %" PRIu32,
                    r->g->path, name.s, MAX_DIMS, n_dims);
    }
    t->n_dims = (int)n_dims;
    int64_t n_values = 1;
    for (uint32_t d = 0; d < MAX_DIMS; d++) {
        t->ne[d] = 1;
        if (d >= n_dims) {
            continue;
        }
        TRY(read_bytes(r, &t->ne[d], sizeof t->ne[d], what));
        if (t->ne[d] < 1) {
            return fail(r->error, CANDID_ERROR_FORMAT,
                        "%s: tensor %s: expected a positive dimension %" PRIu32 ", found %" PRId64, r->g->path, name.s,
                        d, t->ne[d]);
        }
        if (t->ne[d] > INT64_MAX / 8 / n_values) { /* 8: no type takes more bytes for a value */
            return fail(r->error, CANDID_ERROR_FORMAT,
                        "%s: tensor %s: expected fewer than 2^60 values, found more in %" PRIu32 " dimensions (the "
                        "last read is %" PRId64 ")",
                        r->g->path, name.s, d + 1, t->ne[d]);
        }
        n_values *= t->ne[d];
    }
    TRY(read_u32(r, &t->type, what));
    TRY(read_u64(r, offset, what));
    TRY(check_type(r, t));
    const int block = quant_block_values(t->type);
    if (t->ne[0] % block != 0) {
        return fail(r->error, CANDID_ERROR_FORMAT,
                    "%s: tensor %s: expected rows divisible by the %d values of a %s block, found rows of %" PRId64,
                    r->g->path, name.s, block, quant_type_name(t->type), t->ne[0]);
    }
    t->size = quant_row_bytes(t->type, n_values);
    return CANDID_OK;
}

/* Places the tensors in the data section, which begins at the next multiple of the alignment. Like ggml we accept one
 * layout only: file order, each tensor at the padded end of the one before. */
static candid_status place_tensors(const struct reader *r, const uint64_t *offsets, uint64_t alignment) {
    struct gguf *g = r->g;
    const uint64_t mask = alignment - 1;
    const uint64_t data_start = (r->pos + mask) & ~mask; /* both far below 2^63 */
    uint64_t expected = 0;
    for (size_t i = 0; i < g->n_tensors; i++) {
        struct tensor *t = &g->tensors[i];
        struct printable name;
        printable_string(&name, t->name);
        if (offsets[i] != expected) {
            return fail(r->error, CANDID_ERROR_FORMAT,
                        "%s: tensor %s: expected data offset %" PRIu64 " (no gaps, file "
                        "order, alignment %" PRIu64 "), found %" PRIu64,
                        g->path, name.s, expected, alignment, offsets[i]);
        }
        /* expected <= size + mask here, so the sums below cannot wrap */
        if (data_start + expected > g->size || t->size > g->size - data_start - expected) {
            return fail(r->error, CANDID_ERROR_FORMAT,
                        "%s: truncated: tensor %s: expected %zu bytes of data from offset %" PRIu64
                        ", found the end of the file at %zu",
                        g->path, name.s, t->size, data_start + expected, g->size);
        }
        t->data = g->data + data_start + expected;
        expected = (expected + t->size + mask) & ~mask;
    }
    return CANDID_OK;
}

/* ---- the file ---- */

static candid_status read_header(struct reader *r, uint64_t *n_tensors, uint64_t *n_values) {
    struct gguf *g = r->g;
    if (g->size == 0) {
        return fail(r->error, CANDID_ERROR_FORMAT, "%s: expected a GGUF file, found an empty one", g->path);
    }
    if (g->size < 4 || memcmp(g->data, "GGUF", 4) != 0) {
        struct printable start;
        return fail(r->error, CANDID_ERROR_FORMAT,
                    "%s: expected a GGUF file (it begins with \"GGUF\"), found a file that begins with \"%s\"", g->path,
                    printable(&start, (const char *)g->data, g->size < 4 ? g->size : 4));
    }
    r->pos = 4;
    TRY(read_u32(r, &g->version, "the version"));
    if (g->version != 0 && (g->version & 0xFFFF) == 0) {
        return fail(r->error, CANDID_ERROR_UNSUPPORTED,
                    "%s: expected a little-endian GGUF file, found a big-endian one (version field 0x%08" PRIx32 ")",
                    g->path, g->version);
    }
    if (g->version != 2 && g->version != 3) {
        return fail(r->error, g->version == 0 ? CANDID_ERROR_FORMAT : CANDID_ERROR_UNSUPPORTED,
                    "%s: expected GGUF version 2 or 3, found version %" PRIu32, g->path, g->version);
    }
    TRY(read_u64(r, n_tensors, "the tensor count"));
    TRY(read_u64(r, n_values, "the key count"));
    if (*n_values > bytes_left(r) / MIN_VALUE_BYTES) {
        return fail(r->error, CANDID_ERROR_FORMAT,
                    "%s: truncated: the header claims %" PRIu64 " keys, found %zu bytes before the end of the file",
                    g->path, *n_values, bytes_left(r));
    }
    if (*n_tensors > (bytes_left(r) - *n_values * MIN_VALUE_BYTES) / MIN_TENSOR_BYTES) {
        return fail(r->error, CANDID_ERROR_FORMAT,
                    "%s: truncated: the header claims %" PRIu64 " tensors and %" PRIu64
                    " keys, found %zu bytes before the end of the file",
                    g->path, *n_tensors, *n_values, bytes_left(r));
    }
    return CANDID_OK;
}

static candid_status read_alignment(const struct reader *r, uint64_t *out) {
    int64_t alignment = DEFAULT_ALIGNMENT;
    TRY(gguf_get_i64(r->g, "general.alignment", 1, INT32_MAX, &alignment, r->error));
    if ((alignment & (alignment - 1)) != 0 || alignment < MIN_ALIGNMENT) {
        return fail(r->error, CANDID_ERROR_FORMAT,
                    "%s: key general.alignment: expected a power of two from %d, found %" PRId64, r->g->path,
                    MIN_ALIGNMENT, alignment);
    }
    *out = (uint64_t)alignment;
    return CANDID_OK;
}

/* calloc for n > 0 elements; a pointer that may be NULL otherwise. */
static candid_status allocate(void **out, size_t n, size_t size, const char *what, candid_error *error) {
    *out = n ? calloc(n, size) : NULL;
    return n && !*out ? fail_memory(error, what, n * size) : CANDID_OK;
}

static candid_status read_tensors(struct reader *r, size_t n_tensors, uint64_t *offsets) {
    struct gguf *g = r->g;
    for (size_t i = 0; i < n_tensors; i++) {
        TRY(read_tensor(r, i, &g->tensors[i], &offsets[i]));
        g->tensor_names[i] = (struct gguf_name){g->tensors[i].name, i};
    }
    TRY(index_names(r, g->tensor_names, n_tensors, "tensor"));
    g->n_tensors = n_tensors;
    uint64_t alignment = 0;
    TRY(read_alignment(r, &alignment));
    return place_tensors(r, offsets, alignment);
}

static candid_status parse(struct reader *r) {
    struct gguf *g = r->g;
    uint64_t n_tensors = 0, n_values = 0;
    TRY(read_header(r, &n_tensors, &n_values));
    TRY(allocate((void **)&g->values, n_values, sizeof *g->values, "the key table of a GGUF file", r->error));
    TRY(allocate((void **)&g->value_names, n_values, sizeof *g->value_names, "the key index of a GGUF file", r->error));
    for (size_t i = 0; i < n_values; i++) {
        TRY(read_value(r, i, &g->values[i]));
        g->value_names[i] = (struct gguf_name){g->values[i].key, i};
    }
    TRY(index_names(r, g->value_names, n_values, "key"));
    g->n_values = n_values; /* from here on the typed accessors work */

    TRY(allocate((void **)&g->tensors, n_tensors, sizeof *g->tensors, "the tensor table of a GGUF file", r->error));
    TRY(allocate((void **)&g->tensor_names, n_tensors, sizeof *g->tensor_names, "the tensor index of a GGUF file",
                 r->error));
    uint64_t *offsets;
    TRY(allocate((void **)&offsets, n_tensors, sizeof *offsets, "the tensor offsets of a GGUF file", r->error));
    const candid_status status = read_tensors(r, n_tensors, offsets);
    free(offsets);
    return status;
}

/* Takes over the mapping, if it is one. */
static candid_status open_bytes(struct mapped_file file, bool mapped, const char *path, struct gguf **out,
                                candid_error *error) {
    struct gguf *g = calloc(1, sizeof *g);
    if (!g) {
        if (mapped) {
            file_unmap(&file);
        }
        return fail_memory(error, "a GGUF file", sizeof *g);
    }
    file_label(path, g->path, sizeof g->path);
    g->data = file.data;
    g->size = g->file_size = file.size;
    g->mapped = mapped;
    struct reader r = {g, 0, error};
    const candid_status status = parse(&r);
    if (status != CANDID_OK) {
        gguf_close(g);
        return status;
    }
    *out = g;
    return CANDID_OK;
}

candid_status gguf_open_memory(const void *data, size_t size, const char *name, struct gguf **out,
                               candid_error *error) {
    name = name ? name : "(memory)";
    if ((!data && size) || (uintptr_t)data % 32 != 0) {
        return fail(error, CANDID_ERROR_ARGUMENT, "%s: expected a GGUF file at a 32-byte aligned address, found %p",
                    name, data);
    }
    return open_bytes((struct mapped_file){data, size}, false, name, out, error);
}

candid_status gguf_open(const char *path, struct gguf **out, candid_error *error) {
    if (!path) {
        return fail(error, CANDID_ERROR_ARGUMENT, "expected the path of a GGUF file, found NULL");
    }
    struct mapped_file file;
    TRY(file_map(path, "a GGUF file", &file, error));
    return open_bytes(file, file.size > 0, path, out, error);
}

/* Tables for the tensors of an assembled model; names are copied. */
static candid_status adopt_tensors(struct reader *r, const struct tensor *tensors, size_t n) {
    struct gguf *g = r->g;
    TRY(allocate((void **)&g->tensors, n, sizeof *g->tensors, "the tensor table of a model", r->error));
    TRY(allocate((void **)&g->tensor_names, n, sizeof *g->tensor_names, "the tensor index of a model", r->error));
    for (size_t i = 0; i < n; i++) {
        struct tensor *t = &g->tensors[i];
        *t = tensors[i];
        TRY(arena_string(g, tensors[i].name, strlen(tensors[i].name), &t->name, r->error));
        if (t->origin) {
            TRY(arena_string(g, tensors[i].origin, strlen(tensors[i].origin), &t->origin, r->error));
        }
        TRY(check_type(r, t));
        g->tensor_names[i] = (struct gguf_name){t->name, i};
    }
    TRY(index_names(r, g->tensor_names, n, "tensor"));
    g->n_tensors = n;
    return CANDID_OK;
}

candid_status gguf_assemble(const char *path, struct gguf_keys *keys, const struct tensor *tensors, size_t n_tensors,
                            size_t file_size, struct gguf_owner owner, struct gguf **out, candid_error *error) {
    struct mapped_file header = {0};
    candid_status status = gguf_keys_finish(keys, 0, &header, error);
    struct gguf *g = NULL;
    if (status == CANDID_OK) {
        status = open_bytes(header, false, path, &g, error);
    }
    if (status != CANDID_OK) {
        free((void *)(uintptr_t)header.data);
        owner.release(owner.what);
        return status;
    }
    g->assembled = true;
    g->file_size = file_size;
    g->owner = owner;
    struct reader r = {g, 0, error};
    free(g->tensors); /* the empty tables of the header */
    free(g->tensor_names);
    g->tensors = NULL;
    g->tensor_names = NULL;
    status = adopt_tensors(&r, tensors, n_tensors);
    if (status != CANDID_OK) {
        gguf_close(g);
        return status;
    }
    *out = g;
    return CANDID_OK;
}

void gguf_close(struct gguf *g) {
    if (!g) {
        return;
    }
    for (struct gguf_arena_block *block = g->arena, *next; block; block = next) {
        next = block->next;
        free(block);
    }
    free(g->values);
    free(g->value_names);
    free(g->tensors);
    free(g->tensor_names);
    if (g->mapped) {
        file_unmap(&(struct mapped_file){g->data, g->size});
    }
    if (g->assembled) {
        free((void *)(uintptr_t)g->data);
        g->owner.release(g->owner.what);
    }
    free(g);
}

const char *gguf_path(const struct gguf *g) {
    return g->path;
}

size_t gguf_file_size(const struct gguf *g) {
    return g->file_size;
}

bool gguf_is_assembled(const struct gguf *g) {
    return g->assembled;
}

uint32_t gguf_version(const struct gguf *g) {
    return g->version;
}

size_t gguf_tensor_count(const struct gguf *g) {
    return g->n_tensors;
}

const struct tensor *gguf_tensor_at(const struct gguf *g, size_t i) {
    return i < g->n_tensors ? &g->tensors[i] : NULL;
}

const struct tensor *gguf_find_tensor(const struct gguf *g, const char *name) {
    const size_t i = gguf_find_name(g->tensor_names, g->n_tensors, name);
    return i == SIZE_MAX ? NULL : &g->tensors[i];
}
