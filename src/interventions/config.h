/*
 * Configurations: which methods are active, and the value of each of their options.
 *
 *   {"var": true, "vhr": {"preset": "paper", "layers": "1,18-31"}, "comment": "both"}
 *
 * A value is the one given, else the method's preset's, else the recommended one; so a preset that changes later leaves
 * given values alone. Functions take the table of methods as a parameter; candid.h's calls pass `methods`.
 */
#ifndef CANDID_INTERVENTIONS_CONFIG_H
#define CANDID_INTERVENTIONS_CONFIG_H

#include "interventions/method.h"

struct candid_config;
struct config_source;

/* A top-level key that is not a method. */
struct config_section {
    const char *name;
    const char *doc;
    /* Takes the section's value, the text's item `index`. */
    candid_status (*read)(struct candid_config *config, const cJSON *item, int index,
                          const struct config_source *source);
};
extern const struct config_section config_sections[]; /* ends with name NULL */

#define CONFIG_MAX_BYTES ((size_t)1 << 20)

/* Parses `size` bytes of JSON text (no NUL needed). `label` stands for the file in messages; paths in the configuration
 * are relative to `folder`. `table` (NULL-terminated) is borrowed and must outlive the configuration. On success *out
 * is owned by the caller: config_free. Errors name label, line, key, what was expected and found: CANDID_ERROR_FORMAT.
 */
candid_status config_parse(const struct method *const *table, const char *text, size_t size, const char *label,
                           const char *folder, struct candid_config **out, candid_error *error);

/* The same for a file; paths in it are relative to its directory. */
candid_status config_load(const struct method *const *table, const char *path, struct candid_config **out,
                          candid_error *error);

/* Applies "var.rho=0.4", "var=true", "var.preset=code" or "var={…}". The right side is JSON; where that fails or gives
 * another type, plain text. A key of a method that is not active activates it, except enabled=false. Relative paths are
 * relative to the current directory. Errors (CANDID_ERROR_ARGUMENT) name the assignment and change nothing. */
candid_status config_assign(struct candid_config *config, const char *assignment, candid_error *error);

/* NULL is allowed. */
void config_free(struct candid_config *config);

/* Whether the method is active; *out then is valid until the configuration changes. config may be NULL. */
bool config_method(const struct candid_config *config, const struct method *method, struct settings *out);

/* Number `n` of the files that options of active methods name, counted from 0, as it is opened; false: there are no
 * more. config may be NULL. */
bool config_file(const struct candid_config *config, int n, char *path, size_t size);

/* Object of the active methods with all options, itself a configuration. The caller deletes it; NULL: out of memory. */
cJSON *config_resolved(const struct candid_config *config);

/* CRC-32 of what config_resolved tells; 0 when no method is active or config is NULL. */
uint32_t config_checksum(const struct candid_config *config);

#endif
