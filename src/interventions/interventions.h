/*
 * From a configuration to a plan, and from a plan to a report of what it did.
 */
#ifndef CANDID_INTERVENTIONS_INTERVENTIONS_H
#define CANDID_INTERVENTIONS_INTERVENTIONS_H

#include "core/log.h"
#include "interventions/branch.h"
#include "interventions/config.h"
#include "interventions/method.h"
#include "model/weights.h"

/* The table of known models (configs/models.json), parsed. */
struct known_models;
candid_status known_models_load(struct known_models **out, candid_error *error);
void known_models_free(struct known_models *known);

/* Fills *facts for a model; clip may be NULL. trained_with: schemes the model's file names ("cca"), or "". What facts
 * refer to must live as long as they. */
void model_facts_fill(struct model_facts *facts, const char *name, const char *trained_with,
                      const struct llama_weights *llama, const struct clip_weights *clip,
                      const struct known_models *known);

/* The same for facts whose name and numbers are filled in: what names and tables tell. */
void model_facts_look_up(struct model_facts *facts, const char *trained_with, const struct known_models *known);

/* What the active methods need before images are encoded. Contradictions between methods are errors. */
candid_status interventions_needs(const struct candid_config *config, const struct model_facts *facts,
                                  struct method_needs *needs, candid_error *error);

/* The branches that the active methods contrast with. request: the user's text; *out is released by branch_list_free,
 * also after an error. A method that needs an image and gets none is CANDID_ERROR_ARGUMENT. */
candid_status interventions_branches(const struct candid_config *config, const char *request, int n_images,
                                     const struct logger *log, struct branch_list *out, candid_error *error);

/*
 * The plan of a prompt. *out is NULL where no method is active; otherwise owned by the caller: plan_free. taps:
 * (n_images, n_taps), as needs.vision_blocks asked.
 */
candid_status interventions_compile(const struct candid_config *config, const struct model_facts *facts,
                                    const struct layout *prompt, const struct vision_tap *taps, int n_images,
                                    int n_taps, const struct logger *log, struct plan **out, candid_error *error);

/* The same for a branch. edits: it carries the edits of the answer's own row where it sees as much of the images as
 * that (decode.branch_edits); taps may be NULL without. Else those that the contrast makes itself, orders and masks. */
candid_status interventions_compile_branch(const struct candid_config *config, const struct model_facts *facts,
                                           const struct layout *prompt, const struct branch *branch, bool edits,
                                           const struct vision_tap *taps, int n_images, int n_taps,
                                           const struct logger *log, struct plan **out, candid_error *error);

/* Whether running with the plan differs from running without. NULL is allowed. */
bool plan_acts(const struct plan *plan);

/*
 * What each active method did: {"var": {"active": true, "layers": […], …}, "cca": {"active": false, "why": "…"}}. The
 * caller deletes it. NULL: out of memory.
 */
cJSON *interventions_report(const struct plan *plan);

#endif
