/* One prompt in a host without a model, shown step by step. Include after cmocka.h. */
#ifndef CANDID_TESTS_PLUGIN_SCENE_H
#define CANDID_TESTS_PLUGIN_SCENE_H

#include "plugin_lab.h"

enum { N_PROMPT = 2 + LAB_IMAGE + 3 };

/* A prompt about to be run, and tensors for it. */
struct scene {
    struct lab_plugin p;
    candid_task *task;
    candid_sequence *sequence;
    candid_pass *pass;
    candid_segment segment;
    candid_run run;
    float hidden[N_PROMPT * LAB_EMBD], attention[LAB_HEADS * N_PROMPT * N_PROMPT];
    float logits[N_PROMPT * LAB_VOCAB], early[N_PROMPT * 4 * LAB_VOCAB];
    candid_view rows, heads, keys, vocab, before;
};

static inline candid_view view_of(float *data, int n_dims, const int64_t *shape) {
    candid_view v = {.struct_size = sizeof v, .data = data, .n_dims = n_dims};
    for (int64_t i = n_dims - 1, stride = 1; i >= 0; stride *= shape[i--]) {
        v.shape[i] = shape[i];
        v.strides[i] = stride;
    }
    return v;
}

static inline void fill_scene(struct scene *s) {
    for (size_t i = 0; i < sizeof s->hidden / 4; i++) {
        s->hidden[i] = lab_number(0, CANDID_ROLE_MAIN, 0, 0, 0, 0, (int)i);
    }
    for (size_t i = 0; i < sizeof s->attention / 4; i++) {
        s->attention[i] = 0.1f + 0.01f * lab_number(0, CANDID_ROLE_MAIN, 1, 0, 0, 0, (int)i);
    }
    for (size_t i = 0; i < sizeof s->early / 4; i++) {
        s->early[i] = s->logits[i % (sizeof s->logits / 4)] = lab_number(0, CANDID_ROLE_MAIN, 2, 0, 0, 0, (int)i);
    }
}

static inline void open_scene(struct scene *s, const char *json) {
    *s = (struct scene){.p = lab_plugin_make(json), .run = {.struct_size = sizeof s->run}};
    OK(candid_pass_create(s->p.plugin, &s->pass, error));
    OK(candid_task_create(s->p.plugin, "What is it?", 1, &s->task, error));
    s->sequence = lab_sequence(s->task, 2, 3);
    OK(candid_sequence_run(s->sequence, &s->run, error));
    s->segment = (candid_segment){
        .struct_size = sizeof s->segment, .sequence = s->sequence, .n_rows = N_PROMPT, .n_keys = N_PROMPT};
    fill_scene(s);
    s->rows = view_of(s->hidden, 3, (int64_t[]){1, N_PROMPT, LAB_EMBD});
    s->heads = s->rows;
    s->keys = view_of(s->attention, 4, (int64_t[]){1, LAB_HEADS, N_PROMPT, N_PROMPT});
    s->vocab = view_of(s->logits, 3, (int64_t[]){1, N_PROMPT, LAB_VOCAB});
    s->before = view_of(s->early, 4, (int64_t[]){1, N_PROMPT, s->run.n_early > 0 ? s->run.n_early : 1, LAB_VOCAB});
}

static inline void close_scene(struct scene *s) {
    candid_sequence_free(s->sequence);
    candid_task_free(s->task);
    candid_pass_free(s->pass);
    lab_plugin_free(&s->p);
}

static inline const candid_view *view_at(const struct scene *s, candid_site site) {
    return site == CANDID_SITE_ATTENTION_SCORES || site == CANDID_SITE_ATTENTION_PROBS ? &s->keys : &s->rows;
}

/* From the pass's beginning up to before a site. */
static inline void run_up_to(struct scene *s, candid_site site, int layer) {
    fill_scene(s);
    OK(candid_pass_begin(s->pass, &s->segment, 1, error));
    for (int l = 0; l <= LAB_LAYERS; l++) {
        for (int i = l < LAB_LAYERS ? CANDID_SITE_BLOCK_INPUT : CANDID_SITE_FINAL_NORM; i < CANDID_SITE_COUNT; i++) {
            if ((l < LAB_LAYERS && i >= CANDID_SITE_FINAL_NORM) || (l == layer && i == (int)site)) {
                break;
            }
            if (i == CANDID_SITE_LOGITS) {
                OK(candid_pass_logits(s->pass, &s->vocab, s->run.n_early > 0 ? &s->before : NULL, error));
            } else {
                OK(candid_pass_at(s->pass, (candid_site)i, l, view_at(s, (candid_site)i), error));
            }
        }
        if (l == layer) {
            return;
        }
    }
}

static inline void run_whole(struct scene *s) {
    run_up_to(s, CANDID_SITE_COUNT, LAB_LAYERS);
    OK(candid_pass_end(s->pass, error));
}

#endif
