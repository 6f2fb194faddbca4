/* The list of methods. */
#include <string.h>

#include "interventions/method.h"

extern const struct method method_cca, method_mma, method_pai, method_paint, method_hgai, method_var, method_act,
    method_vhr, method_head_scale, method_vista, method_dola, method_vcd, method_damro, method_causalmm, method_icd,
    method_lqcd, method_agla, method_decode, method_opera, method_vicrop, method_carve;

/* Where methods meet at one site they act in this order. */
const struct method *const methods[] = {
    &method_var,   &method_vhr,      &method_pai,        &method_paint, &method_hgai, &method_act,
    &method_vista, &method_dola,     &method_head_scale, &method_cca,   &method_mma,  &method_vcd,
    &method_damro, &method_causalmm, &method_icd,        &method_lqcd,  &method_agla, &method_vicrop,
    &method_carve, &method_opera,    &method_decode,     NULL,
};

const struct method *method_find(const char *name) {
    for (const struct method *const *m = methods; *m; m++) {
        if (strcmp((*m)->name, name) == 0) {
            return *m;
        }
    }
    return NULL;
}
