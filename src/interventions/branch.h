/*
 * Branches: rows beside the answer's own that methods contrast it with.
 *
 * A contrastive method describes what its branch sees and reads in place of the main row, and how its logits count. The
 * request makes a sequence of it with a KV cache, positions and a plan of its own; it is fed the same generated tokens.
 */
#ifndef CANDID_INTERVENTIONS_BRANCH_H
#define CANDID_INTERVENTIONS_BRANCH_H

#include "interventions/method.h"

/* What a branch sees of the images. */
enum branch_sight {
    SIGHT_SAME,   /* the same visual tokens */
    SIGHT_NONE,   /* nothing: the places of the images are left out */
    SIGHT_NOISE,  /* their pixels with diffusion noise */
    SIGHT_CHOSEN, /* a few of their visual tokens, those that the class token attends to most */
    SIGHT_SCALED, /* all patches, their features scaled by a counterfactual attention map */
    SIGHT_MASKED, /* their pixels where a relevance map is low turned black */
};

struct branch {
    const struct method *owner;
    const char *name; /* for reports: "noised image" */

    enum branch_sight sight;
    int noise_step;           /* NOISE: 0..999 */
    uint64_t seed;            /* NOISE, SCALED */
    int n_chosen;             /* CHOSEN: visual tokens kept of each image */
    int block;                /* CHOSEN, SCALED: block of the image encoder; negative: from the end */
    int map_edit;             /* SCALED: enum causalmm_mode */
    const char *path;         /* MASKED: file of the map, or NULL: from the model's own attention */
    struct settings settings; /* MASKED: of the method; they live as long as the configuration */
    bool own_edits;           /* the method's compile() writes this branch's plan */

    /* What it reads: NULL as the main row. Owned by the list. */
    char *request; /* in place of the user's text */
    char *prefix;  /* put before the request */
    char *system;  /* in place of the conversation's text before the first role */

    /* How it counts (decode/contrast.h). */
    float weight;
    bool added;
    float cutoff;
    int n_tokens; /* generated tokens it takes part in; 0: all. After that it counts as the main row does. */
};

#define MAX_BRANCHES 16

/* The branches of a request. Start from {0}; release with branch_list_free. */
struct branch_list {
    const struct method *method; /* the one that adds now */
    const char *request;         /* the user's text */
    const struct logger *log;
    struct branch branches[MAX_BRANCHES];
    int n;
    int n_images;
    char *main_request; /* what the main row asks in place of the user's text (LQCD), or NULL; owned */
    struct {
        const struct method *method;
        const char *reason;
    } idle[MAX_BRANCHES]; /* methods that add none, and why */
    int n_idle;
};

/* A new branch of the method at hand. */
candid_status branch_add(struct branch_list *list, const char *name, struct branch **out, candid_error *error);

/* Says that the method at hand does nothing, and why. reason: a text that lives as long as the program. */
candid_status branches_idle(struct branch_list *list, const char *reason);

/* branches() of PAI and PAINT: the prompt without its image, which carries no edits. out = gamma (a - u) + u. */
candid_status text_contrast(const struct settings *s, struct branch_list *list, candid_error *error);
#define OPTIONS_TEXT_CONTRAST                                                                                          \
    {"gamma",                                                                                                          \
     OPTION_FLOAT,                                                                                                     \
     "1.1",                                                                                                            \
     NULL,                                                                                                             \
     NULL,                                                                                                             \
     0,                                                                                                                \
     100,                                                                                                              \
     NULL,                                                                                                             \
     "Logits become gamma times those of the prompt minus gamma - 1 times those of its text alone. 1: no contrast."},  \
    {                                                                                                                  \
        "cutoff", OPTION_FLOAT, "0.1", NULL, NULL, 0, 1, NULL,                                                         \
            "With the contrast, tokens less probable than this times the most probable one are cut off."               \
    }

/* Options that contrastive methods have in common. */
#define OPTION_FIRST_TOKEN_ONLY                                                                                        \
    {                                                                                                                  \
        "first_token_only", OPTION_BOOL, "false", NULL, "true", 0, 0, NULL,                                            \
            "Contrast the first generated token only, as the released program does: its branch shares the main row's " \
            "cache "                                                                                                   \
            "from the second token on."                                                                                \
    }

void branch_list_free(struct branch_list *list);

#endif
