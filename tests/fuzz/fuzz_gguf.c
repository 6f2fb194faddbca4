/*
 * libFuzzer target: opens the input as a GGUF file, reads every key and tensor in every way there is, then loads the
 * weights of both networks. Nothing may crash, read outside of the input, or allocate far more than the input's size.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "model/gguf.h"
#include "model/weights.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile unsigned sink; /* keeps reads from being optimised away */

static void touch(const void *bytes, size_t size) {
    if (size > 0) {
        sink += ((const uint8_t *)bytes)[0];
        sink += ((const uint8_t *)bytes)[size - 1];
    }
}

static void read_array(const struct gguf *g, const char *key) {
    enum gguf_value_type type = GGUF_U8;
    size_t count = 0, length = 0;
    if (gguf_get_array(g, key, &type, &count, NULL) != CANDID_OK) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        if (type == GGUF_STRING) {
            touch(gguf_array_string(g, key, i, &length), length);
        } else {
            sink += (unsigned)gguf_array_i64(g, key, i);
            sink += gguf_array_f32(g, key, i) > 0;
        }
    }
}

static void read_keys(const struct gguf *g) {
    for (size_t i = 0; i < gguf_key_count(g); i++) {
        const char *key = gguf_key_at(g, i), *string = NULL;
        char words[100];
        int64_t integer = 0;
        float number = 0;
        bool flag = false;
        candid_error error;
        gguf_describe_value(g, i, words, i % sizeof words);
        if (gguf_get_string(g, key, &string, &error) == CANDID_OK) {
            touch(string, strlen(string));
        }
        sink +=
            gguf_get_i64(g, key, 0, 1000, &integer, &error) + gguf_require_i64(g, key, -5, INT64_MAX, &integer, NULL);
        sink += gguf_get_f32(g, key, &number, &error) + gguf_get_bool(g, key, &flag, &error);
        read_array(g, key);
        if (!gguf_has_key(g, key)) {
            abort();
        }
    }
}

static void read_tensors(const struct gguf *g) {
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const struct tensor *t = gguf_tensor_at(g, i);
        touch(t->data, t->size);
        if (gguf_find_tensor(g, t->name) != t || (uintptr_t)t->data % 8 != 0) {
            abort();
        }
    }
}

static void touch_matrix(const struct matrix *m) {
    touch(m->data, (size_t)m->n_out * quant_row_bytes(m->type, m->n_in));
}

static void check_error(candid_status status, const candid_error *error) {
    if (error->status != status || !memchr(error->message, '\0', sizeof error->message) ||
        strchr(error->message, '\n')) {
        abort();
    }
}

static void load_weights(const struct gguf *g) {
    struct llama_weights lm;
    struct clip_weights clip;
    candid_error error;
    int width = 8;
    candid_status status = llama_weights_load(g, &lm, &error);
    if (status != CANDID_OK) {
        check_error(status, &error);
    } else {
        width = lm.n_embd;
        touch_matrix(&lm.output);
        for (int i = 0; i < lm.n_layer; i++) {
            touch_matrix(&lm.layers[i].attn_k);
            touch_matrix(&lm.layers[i].ffn_down);
            touch(lm.layers[i].ffn_norm, (size_t)lm.n_embd * sizeof(float));
        }
    }
    llama_weights_free(&lm);
    sink += clip_weights_present(g);
    status = clip_weights_load(g, width, &clip, NULL, &error);
    if (status != CANDID_OK) {
        check_error(status, &error);
    } else {
        if (clip.n_run < 0 || clip.n_run > clip.n_layer) {
            abort();
        }
        touch_matrix(&clip.patch_embd);
        touch_matrix(&clip.mm_0);
        touch(clip.position_embd, (size_t)(clip.grid * clip.grid + 1) * (size_t)clip.n_embd * sizeof(float));
        for (int i = 0; i < clip.n_layer; i++) {
            touch_matrix(&clip.layers[i].fc1);
            touch_matrix(&clip.layers[i].fc2);
            touch(clip.layers[i].fc1_b, (size_t)clip.n_ff * sizeof(float));
        }
    }
    clip_weights_free(&clip);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    void *copy = NULL; /* aligned, and exactly as long as the input so that AddressSanitizer sees its end */
    if (posix_memalign(&copy, 32, size ? size : 1) != 0) {
        return 0;
    }
    memcpy(copy, data, size);
    struct gguf *g = NULL;
    candid_error error;
    const candid_status status = gguf_open_memory(copy, size, "fuzz.gguf", &g, &error);
    if (status == CANDID_OK) {
        read_keys(g);
        read_tensors(g);
        load_weights(g);
        gguf_close(g);
    } else {
        check_error(status, &error);
    }
    free(copy);
    return 0;
}
