/*
 * "decode": strategy and its options. It is a row of the methods' table like any other, so that files, assignments,
 * schema and documentation treat it alike; it writes no plan.
 */
#include "interventions/decoding.h"

#include <string.h>

#include "core/status.h"

static const char *const strategies[] = {"greedy", "sample", "beam", "opera", "auto", NULL};
static const char *const stoppings[] = {"heuristic", "early", "never", NULL};
static const char *const branch_edits[] = {"none", "same", NULL};

static const struct method_option options[] = {
    {"strategy", OPTION_CHOICE, "\"auto\"", NULL, NULL, 0, 0, strategies,
     "How the answer is searched for. auto: opera where that method is active, beam where beams, length_penalty or "
     "early_stopping are given, sample where the temperature is above 0, else greedy."},
    {"beams", OPTION_INT, "null", NULL, NULL, 1, MAX_HYPOTHESES, NULL, "Beams of beam and opera; null: 5."},
    {"length_penalty", OPTION_FLOAT, "null", NULL, NULL, -10, 10, NULL,
     "Beam search divides a finished answer's sum of log-probabilities by its length to this power; null: 1."},
    {"early_stopping", OPTION_CHOICE, "null", NULL, NULL, 0, 0, stoppings,
     "When beam search ends: heuristic (transformers' false), early (true: as soon as there are as many answers as "
     "beams) or never (until nothing can improve); null: heuristic."},
    {"answers", OPTION_INT, "1", NULL, NULL, 1, MAX_HYPOTHESES, NULL,
     "Answers returned: the best of beam and opera, or independent samples drawn from one reading of the prompt."},
    {"temperature", OPTION_FLOAT, "null", NULL, NULL, 0, 100, NULL,
     "Where the caller gives none. 0: the most probable token."},
    {"top_k", OPTION_INT, "null", NULL, NULL, 0, 1e9, NULL, "Where the caller gives none. 0: off."},
    {"top_p", OPTION_FLOAT, "null", NULL, NULL, 1e-6, 1, NULL, "Where the caller gives none. 1: off."},
    {"repetition_penalty", OPTION_FLOAT, "null", NULL, NULL, 0.01, 100, NULL,
     "Where the caller gives none. 1: off. In beam search it acts on log-probabilities, as in transformers."},
    {"branch_edits", OPTION_CHOICE, "\"none\"", NULL, NULL, 0, 0, branch_edits,
     "Whether the branches that contrasts compare with carry the other methods' edits: none, or same as the answer's "
     "own row. Orders and masks of image tokens (cca, mma) hold for every row."},
    {"contrast", OPTION_METHODS, "null", NULL, NULL, 0, 0, NULL,
     "Contrasts to switch on: names of methods, or objects {\"method\": NAME, options}. The same as their own keys at "
     "the top level."},
};

const struct method method_decode = {
    .name = "decode",
    .title = "Search for the answer",
    .kind = METHOD_SEARCH,
    .edits = "search: greedy, sampled, by beams, or by OPERA; several answers at once",
    .cost = "a step of n rows reads the weights once",
    .citation = "Beam search as in Hugging Face transformers 4.57 (GenerationMixin._beam_search)",
    .options = options,
    .n_options = sizeof options / sizeof *options,
};

static int index_of(const char *const *list, const char *name) {
    for (int i = 0; list[i]; i++) {
        if (strcmp(list[i], name) == 0) {
            return i;
        }
    }
    return -1;
}

const char *strategy_name(enum strategy strategy) {
    return strategies[strategy];
}

static bool given(const struct settings *s, const char *name) {
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(s->values, name);
    return value && !cJSON_IsNull(value);
}

/* The options of OPERA; the recommended ones where only the strategy asks for it. */
static candid_status fill_opera(const struct candid_config *config, struct opera_options *out, candid_error *error) {
    struct settings s;
    if (config_method(config, &method_opera, &s)) {
        opera_params_from(&s, out);
        return CANDID_OK;
    }
    cJSON *values = cJSON_CreateObject();
    for (int i = 0; i < method_opera.n_options; i++) {
        cJSON_AddItemToObject(values, method_opera.options[i].name, cJSON_Parse(method_opera.options[i].recommended));
    }
    const bool whole = cJSON_GetArraySize(values) == method_opera.n_options;
    if (whole) {
        s = (struct settings){.values = values};
        opera_params_from(&s, out);
    }
    cJSON_Delete(values);
    return whole ? CANDID_OK : fail_memory(error, "a configuration", sizeof(cJSON));
}

/* What was given for another strategy. s: of "decode". */
static candid_status check_unused(const struct decoding *d, const struct settings *s, candid_error *error) {
    static const struct {
        const char *name;
        bool beam, opera;
    } of_beams[] = {{"beams", true, true}, {"length_penalty", true, false}, {"early_stopping", true, false}};
    for (size_t i = 0; s->values && i < sizeof of_beams / sizeof *of_beams; i++) {
        const bool used =
            (d->strategy == STRATEGY_BEAM && of_beams[i].beam) || (d->strategy == STRATEGY_OPERA && of_beams[i].opera);
        if (!used && given(s, of_beams[i].name)) {
            return fail(error, CANDID_ERROR_ARGUMENT,
                        "decode.%s is given, but decode.strategy \"%s\" has no use for it", of_beams[i].name,
                        strategy_name(d->strategy));
        }
    }
    if (d->strategy >= STRATEGY_BEAM && (d->top_k > 0 || d->top_p < 1)) {
        return fail(error, CANDID_ERROR_ARGUMENT, "decode.strategy \"%s\" does not sample: it has no use for %s",
                    strategy_name(d->strategy), d->top_k > 0 ? "top_k" : "top_p");
    }
    return CANDID_OK;
}

static candid_status check(const struct decoding *d, bool opera, candid_error *error) {
    const bool beams = d->strategy == STRATEGY_BEAM || d->strategy == STRATEGY_OPERA;
    const char *name = strategy_name(d->strategy);
    if (opera && d->strategy != STRATEGY_OPERA) {
        return fail(error, CANDID_ERROR_ARGUMENT,
                    "opera is active, but decode.strategy is \"%s\": expected \"opera\" or \"auto\"", name);
    }
    if (d->strategy != STRATEGY_SAMPLE && d->temperature > 0) {
        return fail(error, CANDID_ERROR_ARGUMENT,
                    "decode.strategy \"%s\" looks for the most probable answer: expected temperature 0, found %g", name,
                    (double)d->temperature);
    }
    if (d->strategy == STRATEGY_SAMPLE && !(d->temperature > 0)) {
        return fail(error, CANDID_ERROR_ARGUMENT,
                    "decode.strategy \"sample\": expected a temperature above 0, found %g", (double)d->temperature);
    }
    if (d->strategy == STRATEGY_GREEDY && d->answers > 1) {
        return fail(error, CANDID_ERROR_ARGUMENT,
                    "decode.answers: greedy search has one answer, found %d; use a temperature above 0 or beams",
                    d->answers);
    }
    if (beams && d->answers > d->beams) {
        return fail(error, CANDID_ERROR_ARGUMENT, "decode.answers: expected at most as many as beams (%d), found %d",
                    d->beams, d->answers);
    }
    if (d->strategy == STRATEGY_OPERA && d->beams < 2) {
        return fail(error, CANDID_ERROR_ARGUMENT, "opera compares beams: expected decode.beams of at least 2, found %d",
                    d->beams);
    }
    return CANDID_OK;
}

/* Values of the configuration, where the caller left the default. */
static void fill_sampling(const struct settings *s, struct decoding *d) {
    if (given(s, "temperature") && d->temperature == 0) {
        d->temperature = setting_float(s, "temperature");
    }
    if (given(s, "top_k") && d->top_k == 0) {
        d->top_k = setting_int(s, "top_k");
    }
    if (given(s, "top_p") && d->top_p == 1) {
        d->top_p = setting_float(s, "top_p");
    }
    if (given(s, "repetition_penalty") && d->repetition_penalty == 1) {
        d->repetition_penalty = setting_float(s, "repetition_penalty");
    }
}

candid_status decoding_resolve(const struct candid_config *config, const struct decoding *from, struct decoding *out,
                               candid_error *error) {
    struct settings s = {0}, of_opera;
    const bool opera = config_method(config, &method_opera, &of_opera);
    *out = *from;
    out->beams = 5;
    out->answers = 1;
    out->length_penalty = 1;
    bool beams = false, by_name = false;
    if (config_method(config, &method_decode, &s)) {
        const int named = index_of(strategies, setting_string(&s, "strategy"));
        fill_sampling(&s, out);
        out->configured = true;
        by_name = named <= STRATEGY_OPERA;
        out->strategy = by_name ? (enum strategy)named : STRATEGY_GREEDY;
        beams = given(&s, "beams") || given(&s, "length_penalty") || given(&s, "early_stopping");
        out->beams = given(&s, "beams") ? setting_int(&s, "beams") : out->beams;
        out->length_penalty = given(&s, "length_penalty") ? setting_float(&s, "length_penalty") : out->length_penalty;
        out->early_stopping = given(&s, "early_stopping")
                                  ? (enum early_stopping)index_of(stoppings, setting_string(&s, "early_stopping"))
                                  : STOPPING_HEURISTIC;
        out->answers = setting_int(&s, "answers");
        out->branch_edits = strcmp(setting_string(&s, "branch_edits"), "same") == 0;
    }
    if (!by_name) {
        out->strategy = opera                  ? STRATEGY_OPERA
                        : beams                ? STRATEGY_BEAM
                        : out->temperature > 0 ? STRATEGY_SAMPLE
                                               : STRATEGY_GREEDY;
    }
    TRY(check(out, opera, error));
    TRY(check_unused(out, &s, error));
    if (out->strategy == STRATEGY_GREEDY || out->strategy == STRATEGY_SAMPLE) {
        out->beams = 1;
    }
    return out->strategy == STRATEGY_OPERA ? fill_opera(config, &out->opera, error) : CANDID_OK;
}

candid_status decoding_check_branches(const struct decoding *d, const struct candid_config *config,
                                      const struct branch_list *list, candid_error *error) {
    struct settings dola;
    if (d->strategy != STRATEGY_OPERA) {
        return CANDID_OK;
    }
    if (list->n > 0) {
        const char *name = list->branches[0].owner->name;
        const bool off = strcmp(name, "pai") == 0 || strcmp(name, "paint") == 0;
        return fail(error, CANDID_ERROR_ARGUMENT,
                    "opera and %s exclude each other: opera scores the candidates of one row, %s contrasts it with "
                    "another; %s%s%s",
                    name, name, off ? "set " : "switch one off", off ? name : "", off ? ".gamma to 1" : "");
    }
    if (config_method(config, method_find("dola"), &dola) && setting_float(&dola, "cutoff") > 0) {
        return fail(error, CANDID_ERROR_ARGUMENT,
                    "opera needs a continuation for every beam, dola cuts tokens off: set dola.cutoff to 0");
    }
    return CANDID_OK;
}
