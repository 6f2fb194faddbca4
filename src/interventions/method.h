/*
 * What a method is: a name, a table of options, and functions that write a plan (lm/plan.h) for one prompt.
 *
 * A method is one file that defines one `struct method` and is listed in registry.c. Everything users see of its
 * options - validation, JSON schema, documentation, `candid methods` - comes from the table.
 */
#ifndef CANDID_INTERVENTIONS_METHOD_H
#define CANDID_INTERVENTIONS_METHOD_H

#include <cJSON.h>

#include "candid/candid.h"
#include "lm/layout.h"
#include "lm/plan.h"

enum option_type {
    OPTION_BOOL,
    OPTION_INT,
    OPTION_FLOAT,
    OPTION_CHOICE,  /* one of `choices` */
    OPTION_LAYERS,  /* "2-" | "5-18" | "1,18-31" | "all" | "auto" where the option allows it; see layers_parse */
    OPTION_INTS,    /* list of integers from min to max, or null */
    OPTION_HEADS,   /* list of [layer, head] pairs, or null */
    OPTION_PATH,    /* file name, relative to the config file's directory, or null */
    OPTION_TEXT,    /* any text that is not empty, or null */
    OPTION_METHODS, /* list of methods to switch on, or null; see config.c */
};

/* One option. Values are JSON text, so that a table reads like a config file. */
struct method_option {
    const char *name;
    enum option_type type;
    const char *recommended;    /* the default */
    const char *paper;          /* with "preset": "paper"; NULL: as recommended */
    const char *code;           /* with "preset": "code": the released program; NULL: as recommended */
    double min, max;            /* inclusive, of numbers */
    const char *const *choices; /* NULL-terminated, of OPTION_CHOICE */
    const char *doc;            /* one or two sentences: meaning, unit; where paper and code differ */
};

/* The options of one method with every value resolved: explicit, else by preset, else recommended. Values are valid. */
struct settings {
    const cJSON *values; /* object: one member per option of the method */
    const char *folder;  /* directory that OPTION_PATH values are relative to */
};

bool setting_bool(const struct settings *s, const char *name);
int setting_int(const struct settings *s, const char *name);
float setting_float(const struct settings *s, const char *name);
const char *setting_string(const struct settings *s, const char *name); /* choice, layers or path; NULL where null */
const cJSON *setting_list(const struct settings *s, const char *name);  /* array, or NULL where null */

/* The file that an OPTION_PATH value names; false when it does not fit. */
bool setting_path(const struct settings *s, const char *name, char *path, size_t size);

/* What methods may know of the model. */
struct model_facts {
    const char *name; /* general.name, or "" */
    int n_layer, n_head, n_head_kv, head_dim, n_embd, n_vocab;
    int n_vision_blocks;   /* image-encoder blocks that are run, 0 without vision */
    bool trained_with_cca; /* the weights were made with concentric causal attention */
    const cJSON *known;    /* this model's entry of configs/models.json, or NULL */
};

/* Attention of the class token to the patches, summed over heads, of one image: asked for with needs.vision_blocks. */
struct vision_tap {
    int block;
    int n;         /* patches of the first view */
    float *of_cls; /* [n], raster order */
};

/* What must be known before the prompt runs. */
struct method_needs {
    enum image_order order; /* of an image's tokens in the sequence */
    int vision_blocks[4];   /* blocks whose class-token attention the method reads; n_vision_blocks used */
    int n_vision_blocks;
};

/* What compile() gets, and writes to. */
struct compile_job {
    const struct model_facts *facts;
    const struct layout *layout;   /* of the prompt */
    const struct vision_tap *taps; /* (n_images, n_taps) */
    int n_images, n_taps;
    struct plan *plan;
    const struct logger *log;
    const struct method *method; /* the one being compiled */
    struct plan_note *note;      /* its own: write `idle` (see idle() in common.h), `report` and `state` */
};

/* Where a method does its work. */
enum method_kind {
    METHOD_EDITS,       /* inside the forward pass: plans */
    METHOD_CONTRAST,    /* between rows of logits, maybe with edits of its own */
    METHOD_SEARCH,      /* in the choice of tokens */
    METHOD_SECOND_LOOK, /* asks twice, the second time with another image */
};

struct branch_list;

struct method {
    const char *name;     /* key in configs: "var" */
    const char *title;    /* "Visual attention redistribution" */
    const char *edits;    /* what it changes, one sentence naming the sites */
    const char *cost;     /* one sentence */
    const char *citation; /* authors, title, venue, arXiv id; repository */
    enum method_kind kind;
    bool for_every_row; /* an order or mask of image tokens: holds for the branches of contrasts, too */
    bool per_question;  /* what is read of the image depends on the question, or may: nothing of a prompt is shared */
    const struct method_option *options;
    int n_options;

    /* Whether the settings fit the model: what can be known before anything runs. May be NULL: they do, as far as
     * layers of OPTION_LAYERS tell. */
    candid_status (*check)(const struct settings *s, const struct model_facts *facts, candid_error *error);
    /* May be NULL: needs nothing. */
    void (*needs)(const struct settings *s, const struct model_facts *facts, struct method_needs *needs);
    /* Adds steps to job->plan. A method whose settings make it the identity adds none and says so with idle(). May be
     * NULL: it has no plan. */
    candid_status (*compile)(const struct settings *s, struct compile_job *job, candid_error *error);
    /* Adds the branches that the answer's row is contrasted with (interventions/branch.h). May be NULL: none. */
    candid_status (*branches)(const struct settings *s, struct branch_list *list, candid_error *error);
};

/* Every method, in the order in which they are applied where they meet at one site. NULL-terminated. */
extern const struct method *const methods[];

const struct method *method_find(const char *name); /* NULL when there is none */

/* Layers named by `text`, which must be valid: [n_layer] flags. Ranges are cut at the model's last layer. Returns their
 * number, or -1 with a message when a layer named by itself does not exist. */
int layers_select(const char *text, int n_layer, bool *out, const char *method, candid_error *error);

/* Whether `text` is a valid list of layers: items "a", "a-b", "a-" separated by commas, or "all". */
bool layers_valid(const char *text);

#endif
