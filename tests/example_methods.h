/* Two methods with options of every type, for tests of what is built on the tables. */
#ifndef CANDID_TESTS_EXAMPLE_METHODS_H
#define CANDID_TESTS_EXAMPLE_METHODS_H

#include <math.h>

#include "interventions/method.h"

static candid_status example_compile(const struct settings *s, struct compile_job *job, candid_error *error) {
    (void)s, (void)job, (void)error;
    return CANDID_OK;
}

static const char *const example_choices[] = {"last", "all", "7", NULL};

static const struct method_option alpha_options[] = {
    {.name = "rho",
     .type = OPTION_FLOAT,
     .recommended = "0.5",
     .paper = "0.9",
     .code = "0.8",
     .min = 0,
     .max = 1,
     .doc = "Share of heads."},
    {.name = "count",
     .type = OPTION_INT,
     .recommended = "3",
     .paper = "5",
     .min = 1,
     .max = 20,
     .doc = "Number of a|b."},
    {.name = "renormalize", .type = OPTION_BOOL, .recommended = "true", .code = "false", .doc = "Sum to one."},
    {.name = "where",
     .type = OPTION_CHOICE,
     .recommended = "\"last\"",
     .code = "\"all\"",
     .choices = example_choices,
     .doc = "Which rows."},
    {.name = "layers", .type = OPTION_LAYERS, .recommended = "\"2-\"", .paper = "\"5-18\"", .doc = "Where."},
};

static const struct method_option beta_options[] = {
    {.name = "layers", .type = OPTION_LAYERS, .recommended = "\"auto\"", .doc = "Where."},
    {.name = "sinks",
     .type = OPTION_INTS,
     .recommended = "null",
     .paper = "[1415, 2533]",
     .min = 0,
     .max = 10000,
     .doc = "Dimensions."},
    {.name = "heads", .type = OPTION_HEADS, .recommended = "null", .doc = "Heads by hand."},
    {.name = "vectors", .type = OPTION_PATH, .recommended = "null", .doc = "File of vectors."},
    {.name = "scale", .type = OPTION_FLOAT, .recommended = "1", .min = 0, .max = INFINITY, .doc = "A factor."},
};

static const struct method alpha_method = {
    .name = "alpha",
    .title = "Attention for all",
    .edits = "attention.probs: moves mass.",
    .cost = "None.",
    .citation = "Nobody et al., Nothing, 2026.",
    .options = alpha_options,
    .n_options = 5,
    .compile = example_compile,
};

static const struct method beta_method = {
    .name = "beta_two",
    .title = "Better heads",
    .edits = "head_output: scales heads.",
    .cost = "A second prompt.",
    .citation = "Somebody.",
    .options = beta_options,
    .n_options = 5,
    .compile = example_compile,
};

static const struct method plain_method = {
    .name = "plain",
    .title = "Without options",
    .edits = "nothing.",
    .cost = "None.",
    .citation = "Somebody.",
    .compile = example_compile,
};

static const struct method *const example_methods[] = {&alpha_method, &beta_method, &plain_method, NULL};

#endif
