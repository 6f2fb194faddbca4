/*
 * DoLa, decoding by contrasting layers. The output matrix is also applied to the hidden states of earlier layers; the
 * one whose distribution is farthest from the final one has not yet the knowledge that later layers add, and is
 * subtracted.
 *
 * Chuang et al.: DoLa: Decoding by Contrasting Layers Improves Factuality in Large Language Models, ICLR 2024, arXiv
 * 2309.03883; code voidism/DoLa, for LLaVA in BillChan226/HALC. Hidden state 0 is what enters the first layer, k the
 * output of layer k - 1. With p the final distribution, q that of a candidate state and M = (p + q) / 2
 *
 *   d = 1/2 (KL(M || p) + KL(M || q))           premature = the candidate of largest d
 *   out = ln p - ln q_premature                 where ln p >= max ln p + ln cutoff, else -inf
 *
 * This is the released program's d, whose library's divergence takes its arguments the other way round than the paper's
 * Jensen-Shannon divergence 1/2 (KL(p || M) + KL(q || M)). Its d is a mean over the vocabulary instead of a sum, which
 * does not change what is largest. As there, earlier states do not pass the final norm unless normed_early asks for it.
 */
#include <math.h>

#include "core/status.h"
#include "interventions/common.h"

struct dola_state {
    int n;           /* candidates */
    int *states;     /* [n] their numbers, ascending */
    int64_t *chosen; /* [n] how often each was the premature one */
    float ln_cutoff;
    float *log_p, *p, *q; /* [n_vocab] scratch: final, and exponentials of a candidate */
};

/* softmax x = e * the returned factor; ln softmax x = x - *shift. */
static float softmax(const float *x, float *e, int n, float *shift) {
    float highest = -INFINITY;
    for (int i = 0; i < n; i++) {
        highest = x[i] > highest ? x[i] : highest;
    }
    double sum = 0.0;
    for (int i = 0; i < n; i++) {
        e[i] = expf(x[i] - highest);
        sum += (double)e[i];
    }
    *shift = highest + (float)log(sum);
    return (float)(1.0 / sum);
}

/* 2 d of a candidate; q_shift: as of softmax. */
static double divergence(struct dola_state *d, const float *logits, int n, float *q_shift) {
    const float factor = softmax(logits, d->q, n, q_shift);
    double sum = 0.0;
    for (int i = 0; i < n; i++) {
        const float m = 0.5f * (d->p[i] + factor * d->q[i]);
        if (m > 0.0f) {
            sum += (double)(m * (2.0f * logf(m) - d->log_p[i] - (logits[i] - *q_shift)));
        }
    }
    return sum;
}

static void contrast(struct plan_step *step, float *logits, const float *early, int n_early, int n_vocab) {
    struct dola_state *d = step->state;
    float shift, premature_shift = 0.0f, highest = -INFINITY;
    const float factor = softmax(logits, d->p, n_vocab, &shift);
    for (int i = 0; i < n_vocab; i++) {
        d->p[i] *= factor;
        d->log_p[i] = logits[i] - shift;
        highest = d->log_p[i] > highest ? d->log_p[i] : highest;
    }
    int premature = -1;
    double farthest = -INFINITY;
    for (int c = 0; c < n_early; c++) {
        float q_shift;
        const double distance = divergence(d, early + (size_t)c * (size_t)n_vocab, n_vocab, &q_shift);
        if (distance > farthest) {
            farthest = distance;
            premature = c;
            premature_shift = q_shift;
        }
    }
    if (premature < 0) {
        return; /* no numbers: the sampler says so */
    }
    d->chosen[premature]++;
    const float *q = early + (size_t)premature * (size_t)n_vocab;
    const float least = step->keep_all ? -INFINITY : highest + d->ln_cutoff;
    for (int i = 0; i < n_vocab; i++) {
        logits[i] = d->log_p[i] < least ? -INFINITY : d->log_p[i] - (q[i] - premature_shift);
    }
}

static void report(const struct plan *plan, const struct plan_note *note, cJSON *out) {
    const struct dola_state *d = note->state;
    cJSON *list = cJSON_AddArrayToObject(out, "chosen");
    for (int c = 0; c < d->n; c++) {
        if (d->chosen[c] > 0) {
            cJSON *one = cJSON_CreateObject();
            cJSON_AddNumberToObject(one, "hidden_state", d->states[c]);
            cJSON_AddNumberToObject(one, "times", (double)d->chosen[c]);
            cJSON_AddItemToArray(list, one);
        }
    }
}

static candid_status check(const struct settings *s, const struct model_facts *facts, candid_error *error) {
    const cJSON *list = setting_list(s, "layers");
    const int n = facts->n_layer;
    for (const cJSON *item = list ? list->child : NULL; item; item = item->next) {
        if (item->valueint >= n) {
            return fail(error, CANDID_ERROR_ARGUMENT,
                        "dola.layers: expected hidden states from 0 (embeddings) to %d (output of layer %d) of a model "
                        "with %d layers, found %d",
                        n - 1, n - 2, n, item->valueint);
        }
    }
    return CANDID_OK;
}

static void choose_one(struct plan_step *step, int k) {
    *(k == 0 ? &step->embeddings : &step->layers[k - 1]) = true;
}

/* Which hidden states are candidates: those listed, or every even one below n_layer. */
static void choose_candidates(const struct settings *s, int n_layer, struct plan_step *step) {
    const cJSON *list = setting_list(s, "layers");
    for (int k = 0; !list && k < n_layer; k += 2) {
        choose_one(step, k);
    }
    for (const cJSON *item = list ? list->child : NULL; item; item = item->next) {
        choose_one(step, item->valueint);
    }
}

static candid_status compile(const struct settings *s, struct compile_job *job, candid_error *error) {
    const int n_layer = job->facts->n_layer;
    const size_t n_vocab = (size_t)job->facts->n_vocab;
    const cJSON *list = setting_list(s, "layers");
    if (list && !list->child) {
        return idle(job, "layers is an empty list: there is nothing to contrast with");
    }
    TRY(check(s, job->facts, error));
    struct dola_state *d;
    struct plan_step *step;
    TRY(plan_alloc(job->plan, 1, sizeof *d, &d, error));
    TRY(plan_alloc(job->plan, (size_t)n_layer, sizeof *d->states, &d->states, error));
    TRY(plan_alloc(job->plan, (size_t)n_layer, sizeof *d->chosen, &d->chosen, error));
    TRY(plan_alloc(job->plan, n_vocab, sizeof *d->p, &d->p, error));
    TRY(plan_alloc(job->plan, n_vocab, sizeof *d->log_p, &d->log_p, error));
    TRY(plan_alloc(job->plan, n_vocab, sizeof *d->q, &d->q, error));
    d->ln_cutoff = logf(setting_float(s, "cutoff"));
    TRY(plan_add(job->plan, PLAN_CONTRAST_LAYERS, job->method, &step, error));
    step->rows = ROW_LAST | ROW_GENERATED;
    step->normed = setting_bool(s, "normed_early");
    step->contrast = contrast;
    step->state = d;
    choose_candidates(s, n_layer, step);
    for (int k = 0; k < n_layer; k++) {
        if (k == 0 ? step->embeddings : step->layers[k - 1]) {
            d->states[d->n++] = k;
        }
    }
    job->note->report = report;
    job->note->state = d;
    return CANDID_OK;
}

static const struct method_option options[] = {
    {"layers", OPTION_INTS, "null", NULL, NULL, 0, 1e6, NULL,
     "Hidden states that may be chosen: 0 is the embeddings, k the output of layer k - 1. null: every even one below "
     "the number of layers, 0 to 30 of 32, as the program for LLaVA does; the paper chooses among the lower or the "
     "upper half by validation."},
    {"cutoff", OPTION_FLOAT, "0.1", NULL, NULL, 0, 1, NULL,
     "Only tokens at least this likely, relative to the likeliest, remain. 0 keeps all."},
    {"normed_early", OPTION_BOOL, "false", NULL, NULL, 0, 0, NULL,
     "Whether earlier states pass the final norm before the output matrix. The released programs leave it out."},
};

const struct method method_dola = {
    .name = "dola",
    .title = "Decoding by contrasting layers (DoLa)",
    .edits = "early_logits: subtracts the log-probabilities of an earlier layer, chosen token by token, from the final "
             "ones",
    .cost = "the output matrix multiplies 17 rows instead of one (of 32 layers), and their softmax",
    .citation = "Chuang, Xie, Luo, Kim, Glass, He: DoLa: Decoding by Contrasting Layers Improves Factuality in Large "
                "Language Models. ICLR 2024, arXiv 2309.03883. Code: voidism/DoLa; for LLaVA: BillChan226/HALC",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .check = check,
    .compile = compile,
};
