/* candid_config: the public face of interventions/config.h, with the methods of this build. */
#include "interventions/config.h"

#include <stdlib.h>

#include "core/status.h"
#include "interventions/schema.h"

candid_status candid_config_load(const char *path, candid_config **out, candid_error *error) {
    if (!path || !out) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_config_load: %s is NULL", path ? "out" : "path");
    }
    return config_load(methods, path, out, error);
}

candid_status candid_config_parse(const char *text, size_t size, const char *name, candid_config **out,
                                  candid_error *error) {
    if (!text || !out) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_config_parse: %s is NULL", text ? "out" : "text");
    }
    return config_parse(methods, text, size, name ? name : "(configuration)", ".", out, error);
}

candid_status candid_config_set(candid_config *config, const char *assignment, candid_error *error) {
    if (!config || !assignment) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_config_set: %s is NULL", config ? "assignment" : "config");
    }
    return config_assign(config, assignment, error);
}

void candid_config_free(candid_config *config) {
    config_free(config);
}

candid_status candid_config_schema(char **out, candid_error *error) {
    if (!out) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_config_schema: out is NULL");
    }
    return schema_create(methods, out, error);
}

void candid_string_free(char *string) {
    free(string);
}
