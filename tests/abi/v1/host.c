/*
 * A host of the first release: compiled against the headers beside it, which never change, and run with the library of
 * today. Every struct of plugin.h and most of candid.h's pass through it; numbers are known beforehand.
 */
#include <candid/candid.h>
#include <candid/plugin.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LAYERS = 2, HEADS = 2, DIM = 4, WIDTH = 8, WORDS = 10, BEFORE = 1, IMAGE = 4, AFTER = 2, PROMPT = 7 };

static candid_error error;

static void fail(const char *what, int line) {
    fprintf(stderr, "line %d: %s: %s\n", line, what, error.message);
    exit(1);
}

#define OK(call)    ((call) == CANDID_OK ? (void)0 : fail(#call, __LINE__))
#define HOLDS(what) ((what) ? (void)0 : fail(#what, __LINE__))

static candid_view view(float *data, int n_dims, const int64_t *shape) {
    candid_view v;
    memset(&v, 0, sizeof v);
    v.struct_size = sizeof v;
    v.data = data;
    v.n_dims = n_dims;
    for (int64_t i = n_dims - 1, stride = 1; i >= 0; stride *= shape[i--]) {
        v.shape[i] = shape[i];
        v.strides[i] = stride;
    }
    return v;
}

/* ---- candid.h ---------------------------------------------------------------------------------- */

static bool take_text(void *user_data, const char *text, size_t size) {
    HOLDS(strlen(text) == size);
    *(size_t *)user_data += size;
    return true;
}

static void generate(const char *model_path, const char *image_path) {
    candid_model *model = NULL;
    candid_context *context = NULL;
    candid_image *image = NULL;
    candid_config *config = NULL;
    const candid_result *result = NULL;
    candid_model_params model_params = candid_model_params_default();
    model_params.precision = CANDID_PRECISION_EXACT;
    model_params.n_threads = 1;
    OK(candid_model_open(model_path, &model_params, &model, &error));
    candid_model_info info;
    memset(&info, 0x55, sizeof info);
    info.struct_size = sizeof info;
    OK(candid_model_get_info(model, &info, &error));
    HOLDS(info.struct_size == sizeof info && info.has_vision && info.n_layer > 0 && info.n_vocab > 0);
    candid_context_params context_params = candid_context_params_default();
    context_params.n_ctx = 256;
    OK(candid_context_create(model, &context_params, &context, &error));
    OK(candid_image_load(image_path, &image, &error));
    HOLDS(candid_config_parse("{\"pai\": {\"nothing\": 1}}", 23, "bad", &config, &error) == CANDID_ERROR_FORMAT);
    HOLDS(error.status == CANDID_ERROR_FORMAT && strstr(error.message, "nothing"));
    OK(candid_config_parse("{\"pai\": {\"gamma\": 1}}", 21, "good", &config, &error));
    size_t n_text = 0;
    candid_generate_params params = candid_generate_params_default();
    params.max_new_tokens = 4;
    params.config = config;
    params.on_text = take_text;
    params.on_text_user_data = &n_text;
    const candid_image *images[] = {image};
    OK(candid_generate(context, images, 1, "What is in the image?", &params, &result, &error));
    HOLDS(result->n_tokens >= 1 && result->n_tokens <= 4 && result->n_answers == 1 && n_text == strlen(result->text));
    HOLDS(result->answers[0].n_tokens == result->n_tokens && result->stats.n_generated == (int)result->n_tokens);
    HOLDS(strstr(result->interventions, "\"pai\":{\"active\":true"));
    candid_result_free(result);
    candid_request request = {images, 1, "What is in the image?"};
    candid_sharing sharing;
    memset(&sharing, 0, sizeof sharing);
    sharing.struct_size = sizeof sharing;
    OK(candid_generate_many(context, &request, 1, &params, &sharing, &result, &error));
    HOLDS(sharing.n_images == 1 && sharing.n_encoded == 1);
    candid_result_free(result);
    candid_config_free(config);
    candid_image_free(image);
    candid_context_free(context);
    candid_model_free(model);
}

/* ---- plugin.h ---------------------------------------------------------------------------------- */

static candid_host host_of_toy(void) {
    candid_host host = candid_host_default();
    host.host = "a host of the first release";
    host.abilities = CANDID_CAN_ATTENTION_SCORES | CANDID_CAN_BRANCHES | CANDID_CAN_LOGITS | CANDID_CAN_PIXELS |
                     CANDID_CAN_ATTENTION_PROBS | CANDID_CAN_CANDIDATES;
    host.n_layer = LAYERS;
    host.n_head = host.n_head_kv = HEADS;
    host.head_dim = DIM;
    host.n_embd = WIDTH;
    host.n_vocab = WORDS;
    return host;
}

static candid_sequence *sequence_of(candid_task *task) {
    candid_span spans[3];
    candid_sequence *sequence = NULL;
    memset(spans, 0, sizeof spans);
    for (int i = 0; i < 3; i++) {
        spans[i].struct_size = sizeof spans[i];
        spans[i].kind = i == 1 ? CANDID_SPAN_IMAGE : CANDID_SPAN_TEXT;
        spans[i].n_tokens = i == 0 ? BEFORE : i == 1 ? IMAGE : AFTER;
    }
    spans[1].grid_h = spans[1].grid_w = 2;
    OK(candid_sequence_create(task, -1, spans, 3, NULL, 0, &sequence, &error));
    return sequence;
}

/* PAI adds half of their magnitude to the scores of image tokens in the last row. */
static void edit_scores(candid_pass *pass, candid_sequence *sequence) {
    float scores[HEADS * PROMPT * PROMPT];
    const candid_view v = view(scores, 4, (int64_t[]){1, HEADS, PROMPT, PROMPT});
    candid_segment segment;
    candid_run run;
    candid_reach reach;
    uint8_t wanted[LAYERS + 1];
    char *report = NULL;
    memset(&run, 0, sizeof run);
    run.struct_size = sizeof run;
    OK(candid_sequence_run(sequence, &run, &error));
    HOLDS(run.acts && !run.companions && run.n_early == 0);
    memset(&reach, 0, sizeof reach);
    reach.struct_size = sizeof reach;
    OK(candid_sequence_reach(sequence, CANDID_ROLE_MAIN, 3, &reach, &error));
    HOLDS(reach.n_keys == 4 && reach.also_end == 0);
    HOLDS(candid_sequence_wants(sequence, CANDID_ROLE_MAIN, CANDID_SITE_ATTENTION_SCORES, CANDID_ROWS_PROMPT, wanted) ==
          LAYERS);
    memset(&segment, 0, sizeof segment);
    segment.struct_size = sizeof segment;
    segment.sequence = sequence;
    segment.n_rows = segment.n_keys = PROMPT;
    OK(candid_pass_begin(pass, &segment, 1, &error));
    for (int l = 0; l < LAYERS; l++) {
        for (int i = 0; i < HEADS * PROMPT * PROMPT; i++) {
            scores[i] = (float)(i % 5 - 2);
        }
        OK(candid_pass_at(pass, CANDID_SITE_ATTENTION_SCORES, l, &v, &error));
        for (int i = 0; i < HEADS * PROMPT * PROMPT; i++) {
            const float x = (float)(i % 5 - 2);
            const int row = i / PROMPT % PROMPT, key = i % PROMPT;
            const int edited = row == PROMPT - 1 && key >= BEFORE && key < BEFORE + IMAGE;
            HOLDS(fabsf(scores[i] - (edited ? x + 0.5f * fabsf(x) : x)) < 1e-6f);
        }
    }
    OK(candid_pass_end(pass, &error));
    OK(candid_sequence_report(sequence, &report, &error));
    HOLDS(strstr(report, "\"pai\":{\"active\":true"));
    candid_string_free(report);
}

/* VCD: 2 z - n where z is plausible, else minus infinity. */
static void contrast(candid_task *task) {
    float main_logits[WORDS], other[WORDS], pixels[3 * 4] = {0};
    candid_needs needs;
    candid_branch branch;
    memset(&needs, 0, sizeof needs);
    needs.struct_size = sizeof needs;
    OK(candid_task_needs(task, &needs, &error));
    HOLDS(needs.n_branches == 1 && needs.n_taps == 0 && !needs.reorders && !needs.searches);
    memset(&branch, 0, sizeof branch);
    branch.struct_size = sizeof branch;
    OK(candid_task_branch(task, 0, &branch, &error));
    HOLDS(strcmp(branch.method, "vcd") == 0 && branch.sight == CANDID_SIGHT_NOISE && !branch.request);
    HOLDS(strcmp(candid_task_request(task), "What is it?") == 0 && candid_task_needs_branch(task, 0, 5));
    const candid_view image = view(pixels, 3, (int64_t[]){3, 2, 2});
    OK(candid_task_noise(task, 0, 0, 0, &image, &error));
    HOLDS(pixels[0] != 0.0f);
    int32_t cells[4], positions[4], n_positions = 0;
    OK(candid_task_place(task, 2, 2, cells, positions, &n_positions, &error));
    HOLDS(cells[3] == 3 && positions[3] == 3 && n_positions == 4);
    for (int i = 0; i < WORDS; i++) {
        main_logits[i] = i < 5 ? 4.0f - 0.25f * (float)i : -4.0f;
        other[i] = (float)(i % 3);
    }
    const candid_view z = view(main_logits, 1, (int64_t[]){WORDS}), n = view(other, 1, (int64_t[]){WORDS});
    OK(candid_task_contrast(task, 0, &z, &n, 1, &error));
    for (int i = 0; i < WORDS; i++) {
        HOLDS(i < 5 ? fabsf(main_logits[i] - (2 * (4.0f - 0.25f * (float)i) - other[i])) < 1e-5f
                    : main_logits[i] == -INFINITY);
    }
}

static void use_plugin(void) {
    static const char json[] = "{\"pai\": {\"layers\": \"all\", \"gamma\": 1}, \"vcd\": true}";
    candid_host host = host_of_toy();
    candid_config *config = NULL;
    candid_plugin *plugin = NULL;
    candid_task *task = NULL;
    candid_pass *pass = NULL;
    char *can = NULL;
    HOLDS(candid_abi_version() >= CANDID_ABI_VERSION);
    OK(candid_host_capabilities(&host, NULL, &can, &error));
    HOLDS(strstr(can, "\"pai\""));
    candid_string_free(can);
    OK(candid_config_parse(json, sizeof json - 1, "v1", &config, &error));
    OK(candid_plugin_create(&host, config, &plugin, &error));
    OK(candid_task_create(plugin, "What is it?", 1, &task, &error));
    OK(candid_pass_create(plugin, &pass, &error));
    candid_sequence *sequence = sequence_of(task);
    edit_scores(pass, sequence);
    contrast(task);
    candid_sequence_free(sequence);
    candid_pass_free(pass);
    candid_task_free(task);
    candid_plugin_free(plugin);
    candid_config_free(config);
}

static void search(void) {
    static const char json[] = "{\"opera\": {\"candidates\": 2}, \"decode\": {\"beams\": 2}}";
    const candid_host host = host_of_toy();
    candid_config *config = NULL;
    candid_plugin *plugin = NULL;
    candid_task *task = NULL;
    candid_search *found = NULL;
    const int32_t ends[] = {WORDS - 1};
    candid_search_params params;
    candid_order order;
    OK(candid_config_parse(json, sizeof json - 1, "v1", &config, &error));
    OK(candid_plugin_create(&host, config, &plugin, &error));
    OK(candid_task_create(plugin, "What is it?", 1, &task, &error));
    candid_sequence *sequence = sequence_of(task);
    memset(&params, 0, sizeof params);
    params.struct_size = sizeof params;
    params.n_prompt_ids = BEFORE + 1 + AFTER;
    params.max_new_tokens = 3;
    params.end_tokens = ends;
    params.n_end_tokens = 1;
    OK(candid_search_create(task, sequence, &params, &found, &error));
    float logits[WORDS];
    for (int i = 0; i < WORDS; i++) {
        logits[i] = (float)(i == 4) * 3 + (float)(i == 6) * 2 + (float)(i == 2);
    }
    memset(&order, 0, sizeof order);
    order.struct_size = sizeof order;
    const candid_view v = view(logits, 2, (int64_t[]){1, WORDS});
    OK(candid_search_logits(found, &v, &order, &error));
    HOLDS(order.verb == CANDID_VERB_MEASURE && order.n_beams == 1 && order.n_candidates >= 2);
    HOLDS(order.tokens[0] == 4 && order.tokens[1] == 6);
    candid_search_free(found);
    candid_sequence_free(sequence);
    candid_task_free(task);
    candid_plugin_free(plugin);
    candid_config_free(config);
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: %s MODEL.gguf IMAGE\n", argv[0]);
        return 2;
    }
    generate(argv[1], argv[2]);
    use_plugin();
    search();
    printf("a host of ABI version %d works with version %u\n", CANDID_ABI_VERSION, (unsigned)candid_abi_version());
    return 0;
}
