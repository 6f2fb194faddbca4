// Times llama.cpp on a LLaVA model pair and prints one JSON object.
//
// The fields are those of `candid bench --json`, so that compare_llama_cpp.py can treat both
// programs alike.  Built by that script against the libllama and libmtmd of a llama.cpp tree.
//
//   llama_cpp_driver [--model LM.gguf] [--mmproj MM.gguf] [--threads N] [--prefill N]
//                    [--decode N] [--encode N] [--flash-attn on|off|auto] [--ubatch N] [--verbose]
//
// The language model is warmed with a short batch and one token, the encoder with one image, so
// page faults and lazy allocation stay out of the timed part.

#include "llama.h"
#include "mtmd.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

namespace {

struct Options {
    std::string model, mmproj, flash_attn = "auto";
    int threads = 2, prefill = 640, decode = 32, encode = 0, ubatch = 512;
    bool verbose = false;
};

struct Result {
    double prefill_tok_s = 0, decode_tok_s = 0, encode_ms = 0, kv_mb = 0;
};

[[noreturn]] void fail(const std::string & why) {
    std::fprintf(stderr, "llama_cpp_driver: %s\n", why.c_str());
    std::exit(1);
}

double now() {
    using namespace std::chrono;
    return duration<double>(steady_clock::now().time_since_epoch()).count();
}

double median(std::vector<double> v) {
    std::sort(v.begin(), v.end());
    const size_t n = v.size();
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

// Highest resident size of this process in MB (10^6 bytes), mapped file pages included.
double peak_rss_mb() {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);)
        if (line.rfind("VmHWM:", 0) == 0) return std::atof(line.c_str() + 6) * 1024 / 1e6;
    return 0;
}

double file_mb(const std::string & path) {
    if (path.empty()) return 0;
    std::ifstream f(path, std::ios::binary | std::ios::ate);
    return f ? double(f.tellg()) / 1e6 : 0;
}

llama_flash_attn_type flash_attn_type(const std::string & name) {
    if (name == "on") return LLAMA_FLASH_ATTN_TYPE_ENABLED;
    if (name == "off") return LLAMA_FLASH_ATTN_TYPE_DISABLED;
    if (name == "auto") return LLAMA_FLASH_ATTN_TYPE_AUTO;
    fail("--flash-attn takes on, off or auto");
}

void quiet(ggml_log_level level, const char * text, void *) {
    if (level == GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
}

// Feeds `count` pseudo-random tokens in one call; only the last one gets logits.
void feed(llama_context * ctx, int n_vocab, int count) {
    static unsigned state = 1;
    std::vector<llama_token> tokens(count);
    for (auto & t : tokens) {
        state = state * 1664525u + 1013904223u;
        t = 300 + int(state >> 8) % (n_vocab - 400);  // ordinary words: no control or byte tokens
    }
    if (llama_decode(ctx, llama_batch_get_one(tokens.data(), count)) != 0) fail("llama_decode failed");
    llama_synchronize(ctx);
}

void time_language_model(const Options & o, Result & r) {
    llama_model_params mp = llama_model_default_params();
    mp.n_gpu_layers = 0;
    llama_model * model = llama_model_load_from_file(o.model.c_str(), mp);
    if (!model) fail("cannot load " + o.model);

    llama_context_params cp = llama_context_default_params();
    cp.n_ctx = o.prefill + o.decode + 32;
    cp.n_batch = std::max(o.prefill, 32);
    cp.n_ubatch = std::min<uint32_t>(o.ubatch, cp.n_batch);
    cp.n_threads = cp.n_threads_batch = o.threads;
    cp.flash_attn_type = flash_attn_type(o.flash_attn);
    llama_context * ctx = llama_init_from_model(model, cp);
    if (!ctx) fail("cannot create a context");

    const int n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
    feed(ctx, n_vocab, 16);
    feed(ctx, n_vocab, 1);
    llama_memory_clear(llama_get_memory(ctx), true);

    if (o.prefill > 0) {
        const double t = now();
        feed(ctx, n_vocab, o.prefill);
        r.prefill_tok_s = o.prefill / (now() - t);
    }
    if (o.decode > 0) {
        const double t = now();
        for (int i = 0; i < o.decode; i++) feed(ctx, n_vocab, 1);
        r.decode_tok_s = o.decode / (now() - t);
    }
    const double head_dim = double(llama_model_n_embd(model)) / llama_model_n_head(model);
    r.kv_mb = 2.0 * 2.0 * llama_n_ctx(ctx) * llama_model_n_layer(model) * llama_model_n_head_kv(model) * head_dim / 1e6;
    llama_free(ctx);
    llama_model_free(model);
}

// A smooth synthetic RGB picture of the encoder's own size: no resizing takes place.
std::vector<unsigned char> picture(int side) {
    std::vector<unsigned char> rgb(size_t(side) * side * 3);
    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++)
            for (int c = 0; c < 3; c++) rgb[(size_t(y) * side + x) * 3 + c] = (unsigned char) ((x * (c + 1) + y * (3 - c)) & 255);
    return rgb;
}

void time_encoder(const Options & o, Result & r) {
    mtmd_context_params p = mtmd_context_params_default();
    p.use_gpu = false;
    p.print_timings = false;
    p.n_threads = o.threads;
    p.flash_attn_type = flash_attn_type(o.flash_attn);
    p.warmup = true;
    mtmd_context * ctx = mtmd_init_from_file(o.mmproj.c_str(), nullptr, p);
    if (!ctx) fail("cannot load " + o.mmproj);

    const auto rgb = picture(336);
    const mtmd_bitmap * bitmap = mtmd_bitmap_init(336, 336, rgb.data());
    const char * marker = mtmd_default_marker();
    mtmd_input_text text = {marker, std::strlen(marker), false, false};
    mtmd_input_chunks * chunks = mtmd_input_chunks_init();
    if (mtmd_tokenize(ctx, chunks, &text, &bitmap, 1) != 0) fail("mtmd_tokenize failed");
    const mtmd_input_chunk * image = nullptr;
    for (size_t i = 0; i < mtmd_input_chunks_size(chunks); i++) {
        const mtmd_input_chunk * c = mtmd_input_chunks_get(chunks, i);
        if (mtmd_input_chunk_get_type(c) == MTMD_INPUT_CHUNK_TYPE_IMAGE) image = c;
    }
    if (!image) fail("no image chunk");

    std::vector<double> ms;
    for (int i = 0; i <= o.encode; i++) {  // the first one warms up
        const double t = now();
        if (mtmd_encode_chunk(ctx, image) != 0) fail("mtmd_encode_chunk failed");
        if (i > 0) ms.push_back((now() - t) * 1e3);
    }
    r.encode_ms = median(ms);
    mtmd_input_chunks_free(chunks);
    mtmd_free(ctx);
}

Options parse(int argc, char ** argv) {
    Options o;
    for (int i = 1; i < argc; i++) {
        const std::string key = argv[i];
        if (key == "--verbose") { o.verbose = true; continue; }
        if (i + 1 == argc) fail("missing value of " + key);
        const char * value = argv[++i];
        if (key == "--model") o.model = value;
        else if (key == "--mmproj") o.mmproj = value;
        else if (key == "--flash-attn") o.flash_attn = value;
        else if (key == "--threads") o.threads = std::atoi(value);
        else if (key == "--prefill") o.prefill = std::atoi(value);
        else if (key == "--decode") o.decode = std::atoi(value);
        else if (key == "--encode") o.encode = std::atoi(value);
        else if (key == "--ubatch") o.ubatch = std::atoi(value);
        else fail("unknown option " + key);
    }
    return o;
}

}  // namespace

int main(int argc, char ** argv) {
    const Options o = parse(argc, argv);
    if (!o.verbose) {
        llama_log_set(quiet, nullptr);
        mtmd_log_set(quiet, nullptr);
    }
    llama_backend_init();
    Result r;
    if (!o.model.empty()) time_language_model(o, r);
    if (!o.mmproj.empty() && o.encode > 0) time_encoder(o, r);

    std::printf("{\"prefill_tok_s\": %.4f, \"decode_tok_s\": %.4f, \"decode_gb_s\": %.3f, \"encode_ms\": %.2f, "
                "\"peak_rss_mb\": %.1f, \"kv_mb\": %.1f, \"file_mb\": %.1f, \"system\": \"%s\"}\n",
                r.prefill_tok_s, r.decode_tok_s, r.decode_tok_s * file_mb(o.model) / 1e3, r.encode_ms, peak_rss_mb(),
                r.kv_mb, file_mb(o.model) + (o.encode > 0 ? file_mb(o.mmproj) : 0), llama_print_system_info());
    llama_backend_free();
    return 0;
}
