/* The demo model's GGUF file, linked into the program. */
#ifndef CANDID_CLI_DEMO_MODEL_H
#define CANDID_CLI_DEMO_MODEL_H

#include <stddef.h>

extern const unsigned char demo_model_begin[], demo_model_end[];

static inline size_t demo_model_size(void) {
    return (size_t)(demo_model_end - demo_model_begin);
}

#endif
