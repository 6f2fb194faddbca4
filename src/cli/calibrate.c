/* candid calibrate: finds out about a model what some methods must know. */
#include "cli/calibrate.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"

static const char help[] =
    "Usage: candid calibrate sinks [options] [IMAGE...|DIR]\n"
    "       candid calibrate heads [options] IMAGE...|DIR\n\n"
    "sinks  finds the dimensions of the hidden state that are massive in attention sinks, which VAR needs, on a few\n"
    "       prompts and the images given. Use the file as var.table.\n"
    "heads  ranks the attention heads by how much their output depends on the image (VHD) and by how much they look\n"
    "       at it, over the images. Use the file as vhr.table, act.table or head_scale.table.\n\n"
    "  --out FILE              where to write the table (default: standard output)\n"
    "  --tau X                 sinks: threshold (default 20, or 0.3125 sqrt(width) where that is less)\n";

int calibrate_write(cJSON *table, const char *out) {
    char *text = table ? cJSON_Print(table) : NULL;
    cJSON_Delete(table);
    if (!text) {
        complain("out of memory");
        return EXIT_OUTPUT;
    }
    FILE *f = out ? fopen(out, "w") : stdout;
    bool good = f && fprintf(f, "%s\n", text) > 0;
    if (f && out) {
        good = fclose(f) == 0 && good;
    }
    cJSON_free(text);
    if (!good) {
        complain("%s: cannot write: %s", out ? out : "standard output", strerror(errno));
    }
    return good ? EXIT_OK : EXIT_OUTPUT;
}

int calibrate_open(const struct run_options *o, candid_model **model, candid_context **context) {
    const int code = open_model(o, model);
    if (code != EXIT_OK) {
        return code;
    }
    candid_context_params params = candid_context_params_default();
    params.n_ctx = o->n_ctx;
    params.kv_type = o->kv_type;
    candid_error error = {CANDID_OK, ""};
    const candid_status status = candid_context_create(*model, &params, context, &error);
    if (status != CANDID_OK) {
        complain("%s", error.message);
    }
    return status == CANDID_OK ? EXIT_OK : status == CANDID_ERROR_ARGUMENT ? EXIT_USAGE : EXIT_MODEL;
}

candid_status calibrate_run(candid_context *context, struct calibrate_request *c, candid_error *error) {
    struct generated out = {0};
    struct kv_seq *seq = NULL;
    const int64_t n_prompt = request_length(&c->request), left = context->n_ctx - n_prompt;
    if (left < 1) {
        request_free(&c->request);
        return fail(error, CANDID_ERROR_CONTEXT,
                    "the prompt has %" PRId64 " tokens, the context window (--ctx) holds %d", n_prompt, context->n_ctx);
    }
    candid_status status = kv_seq_create(context->kv, &seq, error);
    if (status == CANDID_OK) {
        struct generation g = request_generation(context, &c->request, seq);
        g.max_new_tokens = left < c->max_new_tokens ? (int)left : c->max_new_tokens;
        g.observer = &c->observer;
        status = generate(&g, &out, error);
    }
    if (status == CANDID_OK) {
        c->text = out.answers[0].text;
        c->n_generated = out.stats.n_generated;
        out.answers[0].text = NULL;
    }
    generated_free(&out);
    kv_seq_free(seq);
    request_free(&c->request);
    return status;
}

/* Takes "--name VALUE" or "--name=VALUE" out of argv; false: the value is missing. */
static bool take_option(int *argc, char **argv, const char *name, const char **value) {
    const size_t length = strlen(name);
    for (int i = 1; i < *argc; i++) {
        const bool joined = strncmp(argv[i], name, length) == 0 && argv[i][length] == '=';
        const bool alone = strcmp(argv[i], name) == 0;
        if (!joined && !alone) {
            continue;
        }
        if (alone && i + 1 == *argc) {
            complain("%s: expected a value", name);
            return false;
        }
        *value = joined ? argv[i] + length + 1 : argv[i + 1];
        const int taken = joined ? 1 : 2;
        memmove(argv + i, argv + i + taken, (size_t)(*argc - i - taken + 1) * sizeof *argv);
        *argc -= taken;
        i--;
    }
    return true;
}

static bool parse_tau(const char *text, float *tau) {
    char *end = NULL;
    *tau = text ? strtof(text, &end) : 0.0f;
    if (text && (end == text || *end || !isfinite(*tau) || *tau <= 0.0f)) {
        complain("--tau: expected a number over 0, found \"%s\"", text);
        return false;
    }
    return true;
}

/* Whether no method is on but those a model may be trained with. */
static bool positions_only(const candid_config *config) {
    struct settings s;
    for (const struct method *const *m = methods; *m; m++) {
        if (strcmp((*m)->name, "cca") != 0 && strcmp((*m)->name, "mma") != 0 && config_method(config, *m, &s)) {
            return false;
        }
    }
    return true;
}

int command_calibrate(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    const bool sinks = strcmp(what, "sinks") == 0, heads = strcmp(what, "heads") == 0;
    if (argc > 1 && (strcmp(what, "--help") == 0 || strcmp(what, "-h") == 0)) {
        printf("%s\n%s", help, options_help);
        return EXIT_OK;
    }
    if (!sinks && !heads) {
        complain("expected candid calibrate sinks or candid calibrate heads; see candid calibrate --help");
        return EXIT_USAGE;
    }
    argc--;
    argv++;
    const char *out = NULL, *tau_text = NULL;
    float tau = 0.0f;
    if (!take_option(&argc, argv, "--out", &out) || !take_option(&argc, argv, "--tau", &tau_text) ||
        !parse_tau(tau_text, &tau)) {
        return EXIT_USAGE;
    }
    struct run_options o;
    bool done;
    int code = options_parse(argc, argv, help, &o, &done);
    if (!done && !positions_only(o.config)) {
        complain("candid calibrate measures the model as it is: of the methods only cca and mma may be on, for models "
                 "trained with them");
        code = EXIT_USAGE;
    } else if (!done && (o.json || o.jsonl)) {
        complain("candid calibrate writes its table to --out; --json and --jsonl do not apply");
        code = EXIT_USAGE;
    } else if (!done && heads && tau_text) {
        complain("--tau belongs to candid calibrate sinks");
        code = EXIT_USAGE;
    } else if (!done && heads && o.n_inputs == 0) {
        complain("candid calibrate heads: expected at least one image or directory");
        code = EXIT_USAGE;
    } else if (!done) {
        interrupt_install();
        code = sinks ? calibrate_sinks(&o, tau, out) : calibrate_heads(&o, out);
    }
    options_free(&o);
    return code;
}
