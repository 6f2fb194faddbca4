/* candid caption, candid ask: run a prompt over images. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/output.h"
#include "cli/progress.h"

struct run {
    struct run_options options;
    char **paths;
    size_t n_paths;
    candid_model *model;
    candid_context *context;
    struct output *output;
    struct progress progress;
    bool print_text; /* answers go to stdout as text */
    bool stream;     /* … as they are generated */
    bool named;      /* … each after its image's name */
    bool refused;    /* the last request was, whatever its image */
    candid_stats total;
    size_t n_done;
};

static bool print_piece(void *user_data, const char *text, size_t size) {
    const struct run *run = user_data;
    if (run->stream) {
        fwrite(text, 1, size, stdout);
        fflush(stdout);
    }
    return true;
}

static void add_stats(candid_stats *sum, const candid_stats *s) {
    sum->load_ms += s->load_ms;
    sum->encode_ms += s->encode_ms;
    sum->prefill_ms += s->prefill_ms;
    sum->decode_ms += s->decode_ms;
    sum->n_prompt += s->n_prompt;
    sum->n_generated += s->n_generated;
    sum->decode_bytes += s->decode_bytes;
    sum->fingerprint = sum->fingerprint * 31 + s->fingerprint; /* of all answers in order */
}

/* One request about `n` images, reported under `name`. */
static int answer(struct run *run, const char *name, char **paths, size_t n) {
    candid_error error;
    candid_image **images = calloc(n, sizeof *images);
    const candid_result *result = NULL;
    candid_status status = images ? CANDID_OK : CANDID_ERROR_MEMORY;
    snprintf(error.message, sizeof error.message, "out of memory");
    for (size_t i = 0; status == CANDID_OK && i < n; i++) {
        status = candid_image_load(paths[i], &images[i], &error);
    }
    if (status == CANDID_OK) {
        if (run->stream) {
            progress_clear(&run->progress);
            if (run->named) {
                printf("%s: ", name);
                fflush(stdout);
            }
        }
        status = candid_generate(run->context, (const candid_image *const *)images, n, run->options.prompt,
                                 &run->options.generate, &result, &error);
    }
    for (size_t i = 0; images && i < n; i++) {
        candid_image_free(images[i]);
    }
    free(images);

    if (status == CANDID_ERROR_CANCELLED) {
        if (run->stream) {
            putchar('\n');
        }
        return EXIT_INTERRUPTED;
    }
    if (status != CANDID_OK) {
        progress_clear(&run->progress);
        complain("%s%s%s", strstr(error.message, name) ? "" : name, strstr(error.message, name) ? "" : ": ",
                 error.message);
        run->refused = status == CANDID_ERROR_ARGUMENT;
        return EXIT_ITEM;
    }
    if (run->stream) {
        putchar('\n');
    } else if (run->print_text) {
        printf(run->named ? "%s: %s\n" : "%.0s%s\n", name, result->text);
    }
    for (size_t i = 1; run->print_text && i < result->n_answers; i++) {
        printf(run->named ? "%s: %s\n" : "%.0s%s\n", name, result->answers[i].text);
    }
    fflush(stdout);
    /* An answer cut short by an interruption is shown, not recorded: --resume makes it whole. */
    const bool interrupted = result->finish == CANDID_FINISH_CANCELLED;
    int code =
        interrupted ? EXIT_INTERRUPTED : output_add(run->output, &run->options, name, run->options.prompt, result);
    if (run->print_text && ferror(stdout)) {
        complain("cannot write to standard output");
        code = EXIT_OUTPUT;
    }
    if (run->options.verbose) {
        progress_clear(&run->progress);
        print_speed(stderr, &result->stats);
        print_interventions(stderr, result->interventions);
    }
    add_stats(&run->total, &result->stats);
    run->n_done++;
    candid_result_free(result);
    return code;
}

/* All images, one request each (or one for all with --together). */
static int answer_all(struct run *run) {
    if (run->options.together) {
        bool held = output_holds(run->output, run->paths[0], run->options.prompt);
        return held ? EXIT_OK : answer(run, run->paths[0], run->paths, run->n_paths);
    }
    int worst = EXIT_OK;
    progress_start(&run->progress, run->n_paths);
    for (size_t i = 0; i < run->n_paths; i++) {
        bool skip = output_holds(run->output, run->paths[i], run->options.prompt);
        int code = skip ? EXIT_OK : answer(run, run->paths[i], &run->paths[i], 1);
        /* What is wrong with the first request, not with its image, is wrong with all of them. */
        if (code == EXIT_INTERRUPTED || code == EXIT_OUTPUT || (run->refused && i == 0)) {
            worst = code;
            break;
        }
        worst = code > worst ? code : worst;
        progress_step(&run->progress, skip);
    }
    progress_end(&run->progress);
    return worst;
}

static int open_context(struct run *run) {
    candid_context_params params = candid_context_params_default();
    params.n_ctx = run->options.n_ctx;
    params.kv_type = run->options.kv_type;
    candid_error error;
    if (candid_context_create(run->model, &params, &run->context, &error) != CANDID_OK) {
        complain("%s", error.message);
        return error.status == CANDID_ERROR_ARGUMENT ? EXIT_USAGE : EXIT_MODEL;
    }
    return EXIT_OK;
}

static int run_images(struct run *run) {
    int code = paths_collect(run->options.inputs, run->options.n_inputs, &run->paths, &run->n_paths);
    if (code != EXIT_OK) {
        return code;
    }
    code = open_model(&run->options, &run->model);
    if (code == EXIT_OK) {
        code = open_context(run);
    }
    if (code == EXIT_OK) {
        code = output_open(&run->options, &run->output);
    }
    if (code == EXIT_OK) {
        run->print_text = !run->output;
        run->stream = run->print_text && isatty(STDOUT_FILENO);
        run->named = run->n_paths > 1 && !run->options.together;
        run->options.generate.on_text = print_piece;
        run->options.generate.on_text_user_data = run;
        run->options.generate.should_cancel = interrupt_requested;
        interrupt_install();
        code = answer_all(run);
        if (run->n_done > 0) {
            print_speed(stderr, &run->total);
        }
        if (code == EXIT_INTERRUPTED) {
            fputs("candid: interrupted\n", stderr);
        }
    }
    int closed = output_close(run->output);
    return code == EXIT_OK ? closed : code;
}

static void run_free(struct run *run) {
    candid_context_free(run->context);
    candid_model_free(run->model);
    paths_free(run->paths, run->n_paths);
    options_free(&run->options);
}

static int run_command(int argc, char **argv, const char *help, const char *default_prompt) {
    struct run run = {0};
    bool done;
    int code = options_parse(argc, argv, help, &run.options, &done);
    if (done) {
        options_free(&run.options);
        return code;
    }
    if (!run.options.prompt) {
        run.options.prompt = default_prompt;
    }
    if (!run.options.prompt) {
        complain("expected -q QUESTION; see candid %s --help", argv[0]);
        options_free(&run.options);
        return EXIT_USAGE;
    }
    if (run.options.n_inputs == 0) {
        complain("expected at least one image or directory; see candid %s --help", argv[0]);
        options_free(&run.options);
        return EXIT_USAGE;
    }
    code = run_images(&run);
    run_free(&run);
    return code;
}

int command_caption(int argc, char **argv) {
    return run_command(
        argc, argv,
        "Usage: candid caption [options] IMAGE...|DIR\n\n"
        "Describes each image. The answer goes to standard output (streamed on a terminal), the speed line\n"
        "to standard error.\n\n"
        "  --prompt TEXT           instead of \"Please help me describe the image in detail.\"\n",
        CAPTION_PROMPT);
}

int command_ask(int argc, char **argv) {
    return run_command(argc, argv,
                       "Usage: candid ask -q QUESTION [options] IMAGE...|DIR\n\n"
                       "Answers the question about each image, or with --together about all of them at once.\n\n"
                       "  -q, --question TEXT     the question\n",
                       NULL);
}
