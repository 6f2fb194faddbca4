/* Methods that ask twice, the second time with another image: their options. api/second_look.c carries them out. */
#ifndef CANDID_INTERVENTIONS_LOOK_TWICE_H
#define CANDID_INTERVENTIONS_LOOK_TWICE_H

#include "interventions/config.h"

enum look_twice { LOOK_ONCE, LOOK_VICROP, LOOK_CARVE };

struct look_options {
    enum look_twice kind;
    const struct method *method;
    const char *layers;  /* text, or "auto" */
    const char *general; /* the request that the question's attention is compared with */
    bool whole_geometry; /* take the map to cover the image, whatever preprocessing did */
    bool refined_alone;  /* show the second image instead of both */
    /* CARVE */
    int steps;
    bool first_step_only;
    float top_share;
    int min_regions;
};

/* kind LOOK_ONCE where neither method is active. Both at once are CANDID_ERROR_ARGUMENT. Texts live as long as the
 * configuration. */
candid_status look_options_from(const struct candid_config *config, struct look_options *out, candid_error *error);

#endif
