/*
 * Hugging Face model directories, presented in GGUF's terms without conversion: weights stay in the mapped safetensors
 * files, config.json and the tokenizer files become GGUF keys (see gguf_assemble).
 *
 * Layouts:
 *   llava-hf     LlavaForConditionalGeneration and LlavaNextForConditionalGeneration, tensor names of old and new
 *                versions of transformers
 *   original     liuhaotian/llava-v1.5 and -v1.6: flat LLaMA keys; the CLIP tower in the same files or in a directory
 * of its own (`vision_path`) text only    LlamaForCausalLM, MistralForCausalLM Anything the forward pass would compute
 * differently (other architectures, activations, quantised weights, tensors without a place) is
 * CANDID_ERROR_UNSUPPORTED in one sentence.
 */
#ifndef CANDID_MODEL_HF_H
#define CANDID_MODEL_HF_H

#include "core/log.h"
#include "model/gguf.h"

/*
 * Opens directory `path`; vision_path is the directory of a CLIP image encoder or NULL. Language model and image
 * encoder are both in *out (gguf_close). Rows of attn_q and attn_k stay in the order of transformers: the key
 * "candid.rope_halves" tells the loader.
 */
candid_status hf_open(const char *path, const char *vision_path, struct gguf **out, const struct logger *log,
                      candid_error *error);

#endif
