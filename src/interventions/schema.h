/* What users see of the methods' tables: JSON schema, documentation, listings. Tables are NULL-terminated. */
#ifndef CANDID_INTERVENTIONS_SCHEMA_H
#define CANDID_INTERVENTIONS_SCHEMA_H

#include <stdio.h>

#include "interventions/method.h"

/* JSON Schema (draft 2020-12) of configurations. *out: text, the caller frees it with free(). */
candid_status schema_create(const struct method *const *table, char **out, candid_error *error);

/* docs/config.md: how configurations are written, and one section per method. */
void methods_write_markdown(const struct method *const *table, FILE *to);

/* Two lines per method: name and title, what it edits. */
void methods_write_list(const struct method *const *table, FILE *to);

/* Everything about one method. */
void method_write(const struct method *m, FILE *to);

#endif
