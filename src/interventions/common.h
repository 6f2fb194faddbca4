/* What several methods need while they write their plans. */
#ifndef CANDID_INTERVENTIONS_COMMON_H
#define CANDID_INTERVENTIONS_COMMON_H

#include "core/json.h"
#include "interventions/method.h"

/* Says why the method does nothing and ends its compile(). */
candid_status idle(struct compile_job *job, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Whether the prompt shows an image; if not, says so as the reason for doing nothing. */
bool has_image(struct compile_job *job);

/* Number of image tokens of the prompt. */
int image_tokens(const struct layout *layout);

/* Gives every image token of `classes` ([n_prompt]) class 1. */
void classify_images(const struct layout *layout, uint8_t *classes);

/* Adds an attention step for the layers that option `layers` names. */
candid_status add_attention(const struct settings *s, struct compile_job *job, enum attention_edit_kind kind,
                            unsigned rows, struct plan_step **out, candid_error *error);

/* compile() of a method that raises the scores of image tokens by option `alpha`: idle at 0 or without an image. */
candid_status raise_image_scores(const struct settings *s, struct compile_job *job, enum attention_edit_kind kind,
                                 unsigned rows, candid_error *error);

/* Switches on the layers an option of type OPTION_LAYERS names. Where the model has none of them that becomes the
 * reason for doing nothing. *n (may be NULL): how many there are. */
candid_status select_layers(const struct settings *s, const char *option, struct compile_job *job, bool *layers, int *n,
                            candid_error *error);

/* Gives the `count` highest of n values this mark; of equal ones the lower index. Marks of that value must not be there
 * yet. */
void mark_highest(const float *values, int n, int count, uint8_t mark, uint8_t *marks);

/* Order of two floats, for qsort. */
int ascending(const void *a, const void *b);

/* Adds the list of the layers that are on. */
void report_layers(cJSON *out, const char *name, const bool *layers, int n_layer);

/*
 * A set of heads, (n_layer, n_head) bytes, from an option of type OPTION_HEADS named "heads" or, when that is null,
 * from the table file of option "table": its `top` highest heads by `rank_by`. *given says whether either was set; all
 * heads are 0 when not.
 */
candid_status select_heads(const struct settings *s, struct compile_job *job, uint8_t *heads, bool *given,
                           candid_error *error);

/* Whether the prompt has text beside its images; if not, says so as the reason for doing nothing. */
bool has_text(struct compile_job *job);

/* Opens a table file that an option of type OPTION_PATH names and checks that it was made for a model of this shape
 * (another name is a warning). The caller releases *out with json_free. */
candid_status open_table(const struct settings *s, const struct compile_job *job, const char *path, struct json *out,
                         candid_error *error);

/* One column of a head table file written by `candid calibrate heads`: "vhd" or "image_attention", (n_layer, n_head).
 */
candid_status read_head_table(const struct settings *s, const struct compile_job *job, const char *path,
                              const char *column, float *values, candid_error *error);

#endif
