/* What is behind the opaque handles of plugin.h. */
#ifndef CANDID_HOST_HOST_H
#define CANDID_HOST_HOST_H

#include "candid/plugin.h"
#include "core/log.h"
#include "interventions/decoding.h"
#include "interventions/interventions.h"
#include "interventions/report.h"
#include "lm/plan_run.h"

struct candid_plugin {
    struct logger log;
    char *host, *model, *trained_with; /* owned */
    uint32_t abilities;
    int n_threads;
    float score_scale; /* 1: scores are shown scaled */
    struct known_models *known;
    struct model_facts facts;
    const candid_config *config; /* borrowed, or NULL */
    struct method_needs needs;
    struct decoding decoding;
};

/* The host's description with every default; strings are borrowed. Errors name the field. */
candid_status host_read(const candid_host *given, candid_host *out, candid_error *error);

/* A plugin without its methods checked; release with candid_plugin_free. */
candid_status plugin_open(const candid_host *host, const candid_config *config, candid_plugin **out,
                          candid_error *error);

/* Whether the host can run everything that the configuration switches on; CANDID_ERROR_UNSUPPORTED. */
candid_status capabilities_check(const candid_plugin *plugin, candid_error *error);

struct candid_task {
    const candid_plugin *plugin;
    char *request; /* the user's; owned, as list.request */
    int n_images;
    struct branch_list list;
    struct branch_tally tallies[MAX_BRANCHES];
};

/* A branch of a task by its number; CANDID_ERROR_ARGUMENT: there is none. */
candid_status task_branch(const candid_task *task, int32_t number, const char *call, const struct branch **out,
                          candid_error *error);

/* One row of the last layer's attention, as struct opera_row. */
struct measured_row {
    float sum, image_mass;
    int n_before; /* generated tokens before its own */
    size_t local; /* where its local part begins, n_before + 1 long */
};

/* Those of the last pass, for a search. */
struct measured_rows {
    struct measured_row *rows; /* [n] */
    float *local;              /* [n_local] */
    size_t n, capacity, n_local, local_capacity;
    bool incomplete; /* memory ran out */
    int image_begin, image_end;
};

struct candid_sequence {
    candid_task *task;
    const struct branch *branch; /* NULL: the main sequence */
    struct layout layout;        /* of the prompt */
    int n_prompt, n_image_tokens;
    struct plan *plan; /* NULL: nothing is measured or edited */
    bool companion_ran[ROLE_COUNT];
    int n_shown;             /* rows of the prompt that have gone through */
    struct vision_tap *taps; /* (n_images, n_taps) */
    float *of_cls;           /* what they point into */
    struct measured_rows measured;
};

/* A table of (n_layer + 1, CANDID_SITE_COUNT) bytes. */
static inline size_t site_index(int layer, enum candid_site site) {
    return (size_t)layer * CANDID_SITE_COUNT + (size_t)site;
}

/* Sets the bytes of the sites that must be shown for rows of a role with these sets (of enum plan_rows); last: one of
 * them is the last of the prompt or generated, so that its logits count. */
void sequence_sites(const candid_sequence *sequence, enum plan_role role, unsigned row_sets, bool last, uint8_t *table);

/* The same for one step of a plan. */
void step_sites(const struct plan *plan, const struct plan_step *step, enum plan_role role, unsigned row_sets,
                bool last, uint8_t *table);

/* Rows of its prompt that a role has. */
int sequence_prompt_rows(const candid_sequence *sequence, enum plan_role role);

/* Keys the row at `index` sees. */
struct attention_row sequence_row(const candid_sequence *sequence, enum plan_role role, int index);

const char *host_site_name(enum candid_site site);

#endif
