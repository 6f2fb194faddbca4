/* What the tests of both weight loaders share: tiny models in memory with names left out or added. */
#ifndef CANDID_TESTS_WEIGHT_FILE_H
#define CANDID_TESTS_WEIGHT_FILE_H

#include "tiny_model.h"

#include "model/weights.h"

/* A file in memory: the tiny model without the `skip` names, then what `add` adds. */
struct file {
    uint8_t *bytes;
    struct gguf *gguf;
};

static inline struct file make_file(const char *name, const struct tiny_model_options *o, const char *const skip[3],
                                    void (*add)(struct gguf_writer *)) {
    struct gguf_writer *w = gw_open(NULL);
    for (int i = 0; i < 3 && skip && skip[i]; i++) {
        gw_skip(w, skip[i]);
    }
    tiny_model_fill(w, o);
    gw_skip(w, NULL);
    if (add) {
        add(w);
    }
    struct file f = {0};
    size_t size;
    f.bytes = gw_take(w, &size);
    candid_error error = {0};
    if (gguf_open_memory(f.bytes, size, name, &f.gguf, &error) != CANDID_OK) {
        fail_msg("the test's own file is broken: %s", error.message);
    }
    return f;
}

static inline void drop(struct file *f) {
    gguf_close(f->gguf);
    free(f->bytes);
}

static inline void tensor(struct gguf_writer *w, const char *name, uint32_t type, uint32_t n_dims, const int64_t *ne) {
    int64_t n = 1;
    for (uint32_t d = 0; d < n_dims; d++) {
        n *= ne[d];
    }
    const size_t size = quant_row_bytes(type, n);
    void *zeros = calloc(size, 1);
    assert_non_null(zeros);
    gw_tensor(w, name, type, n_dims, ne, zeros, size);
    free(zeros);
}

static inline void assert_matrix(const struct file *f, const struct matrix *m, const char *name, int n_out, int n_in) {
    const struct tensor *t = gguf_find_tensor(f->gguf, name);
    assert_non_null(t);
    assert_ptr_equal(m->data, t->data);
    assert_int_equal(m->type, t->type);
    assert_int_equal(m->n_out, n_out);
    assert_int_equal(m->n_in, n_in);
}

#endif
