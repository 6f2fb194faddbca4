/* The list of methods. */
#include <string.h>

#include "interventions/method.h"

const struct method *const methods[] = {NULL};

const struct method *method_find(const char *name) {
    for (const struct method *const *m = methods; *m; m++) {
        if (strcmp((*m)->name, name) == 0) {
            return *m;
        }
    }
    return NULL;
}
