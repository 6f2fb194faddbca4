// Checks that llama.cpp reads a GGUF file written by `candid convert` or `candid quantize` and computes the same logits:
//
//   llama_cpp_logits MODEL.gguf EXPECTED.f32 ID...
//
// feeds the ids; writes EXPECTED.f32 if there is none, else prints the relative error of the last position's logits against EXPECTED.f32 (little-endian f32) and
// whether the likeliest token is the same.  Not built with the project; tests/golden/check_llama_cpp.py builds and runs it.
#include "llama.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <vector>

int main(int argc, char ** argv) {
    if (argc < 4) return 2;
    llama_log_set([](ggml_log_level level, const char * text, void *) { if (level >= GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr); }, nullptr);
    llama_backend_init();
    llama_model * model = llama_model_load_from_file(argv[1], llama_model_default_params());
    if (!model) return 1;
    llama_context_params params = llama_context_default_params();
    params.n_ctx = 512;
    params.type_k = params.type_v = GGML_TYPE_F32;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    llama_context * context = llama_init_from_model(model, params);
    if (!context) return 1;
    std::vector<llama_token> ids;
    for (int i = 3; i < argc; i++) ids.push_back(std::atoi(argv[i]));
    if (llama_decode(context, llama_batch_get_one(ids.data(), (int)ids.size())) != 0) return 1;
    const int n = llama_vocab_n_tokens(llama_model_get_vocab(model));
    const float * logits = llama_get_logits_ith(context, -1);
    std::ifstream file(argv[2], std::ios::binary);
    std::vector<float> expected((size_t)n);
    if (!file) {
        std::ofstream(argv[2], std::ios::binary).write((const char *)logits, n * (std::streamsize)sizeof(float));
        std::printf("recorded\n");
        return 0;
    }
    if (!file.read((char *)expected.data(), n * (std::streamsize)sizeof(float))) return 1;
    double error = 0, norm = 0;
    for (int i = 0; i < n; i++) {
        error += std::pow((double)logits[i] - expected[i], 2);
        norm += std::pow((double)expected[i], 2);
    }
    const bool same = std::max_element(logits, logits + n) - logits ==
                      std::max_element(expected.begin(), expected.end()) - expected.begin();
    std::printf("relative error %.2e, likeliest token %s\n", std::sqrt(error / norm), same ? "the same" : "another");
    return 0;
}
