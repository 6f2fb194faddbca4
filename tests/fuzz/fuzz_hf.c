/*
 * libFuzzer target: the files of Hugging Face directories. The first byte chooses what the rest is: safetensors,
 * tokenizer.json, tokenizer.model or config.json. What is accepted is used: tensors are read, the tokenizer is built
 * from the keys and encodes a text. Nothing may crash, read outside of the input, or allocate far more than the input's
 * size.
 */
#include <stdlib.h>
#include <string.h>

#include "lm/tokenizer.h"
#include "model/hf_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile unsigned sink; /* keeps reads from being optimised away */

/* Every failure has a sentence that names the file. */
static void check(candid_status status, const candid_error *error) {
    if (status != CANDID_OK && (error->status != status || !strstr(error->message, "input"))) {
        abort();
    }
}

static void read_safetensors(const uint8_t *data, size_t size) {
    struct safetensors *s = NULL;
    candid_error error = {CANDID_OK, ""};
    const candid_status status = safetensors_open_memory(data, size, "input", &s, &error);
    check(status, &error);
    if (status != CANDID_OK) {
        return;
    }
    for (size_t i = 0; i < safetensors_count(s); i++) {
        const struct safetensors_tensor *t = safetensors_at(s, i);
        if (t->size > 0) {
            sink += (unsigned)(t->data[0] + t->data[t->size - 1]);
        }
        if (safetensors_find(s, t->name) != t) {
            abort();
        }
    }
    safetensors_close(s);
}

static void nothing(void *what) {
    (void)what;
}

/* The vocabulary as a tokenizer. */
static void use_vocabulary(const struct hf_vocab *v, struct gguf_keys *keys) {
    struct gguf *g = NULL;
    struct tokenizer *t = NULL;
    candid_error error = {CANDID_OK, ""};
    if (v->count > 4096 || hf_set_vocabulary(v, (int64_t)v->count + 3, -1, true, keys, &error) != CANDID_OK ||
        gguf_assemble("input", keys, NULL, 0, 0, (struct gguf_owner){NULL, nothing}, &g, &error) != CANDID_OK) {
        return;
    }
    const candid_status status = tokenizer_create(g, &t, &error);
    check(status, &error);
    if (status == CANDID_OK) {
        static const char text[] = "The quick  brown fox </s> \xe2\x96\x81 123 \xf0\x9f\x90\x95";
        struct token_list ids = {0};
        if (tokenizer_encode(t, text, sizeof text - 1, true, true, &ids, &error) != CANDID_OK) {
            abort();
        }
        for (size_t i = 0; i < ids.count; i++) {
            sink += (unsigned)ids.ids[i];
        }
        token_list_free(&ids);
        tokenizer_free(t);
    }
    gguf_close(g);
}

static void read_tokenizer(const uint8_t *data, size_t size, bool sentencepiece) {
    struct hf_vocab v = {.bos = -1, .eos = -1, .unknown = -1};
    struct gguf_keys keys = {0};
    candid_error error = {CANDID_OK, ""};
    bool add_bos = false;
    struct json j = {0};
    candid_status status = sentencepiece ? hf_parse_sentencepiece(data, size, "input", &v, &error)
                                         : json_parse((const char *)data, size, "input", &j, &error);
    if (!sentencepiece && status == CANDID_OK) {
        status = hf_parse_tokenizer_json(&j, &v, &keys, &add_bos, &error);
    }
    check(status, &error);
    if (status == CANDID_OK) {
        use_vocabulary(&v, &keys);
    }
    json_free(&j);
    gguf_keys_free(&keys);
    hf_vocab_free(&v);
}

static void read_config(const uint8_t *data, size_t size) {
    struct json j = {0};
    struct gguf_keys keys = {0};
    struct hf_config config;
    const struct logger silent = {0};
    candid_error error = {CANDID_OK, ""};
    int64_t image_size = 0;
    candid_status status = json_parse((const char *)data, size, "input", &j, &error);
    check(status, &error);
    if (status == CANDID_OK) {
        check(hf_parse_config(&j, &keys, &config, &silent, &error), &error);
        check(hf_parse_vision_config(&j, &keys, &config, &image_size, &error), &error);
        check(hf_parse_preprocessor(&(struct hf_node){&j, j.root, "", &error}, 56, false, &keys), &error);
    }
    json_free(&j);
    gguf_keys_free(&keys);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) {
        return 0;
    }
    uint8_t *copy = malloc(size); /* of its own size, so that reads beyond the end are seen */
    if (!copy) {
        return 0;
    }
    memcpy(copy, data + 1, size - 1);
    switch (data[0] % 4) {
    case 0: read_safetensors(copy, size - 1); break;
    case 1: read_tokenizer(copy, size - 1, false); break;
    case 2: read_tokenizer(copy, size - 1, true); break;
    case 3: read_config(copy, size - 1); break;
    }
    free(copy);
    return 0;
}
