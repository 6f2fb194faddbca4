/* candid calibrate heads. */
#include "cli/calibrate.h"

int calibrate_heads(struct run_options *o, const char *out) {
    (void)o;
    (void)out;
    return EXIT_ITEM;
}
