/* A progress bar on stderr with rate and remaining time, shown on a terminal only. */
#ifndef CANDID_CLI_PROGRESS_H
#define CANDID_CLI_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>

struct progress {
    bool shown;
    size_t total, done, skipped; /* done includes skipped items */
    double start_ms, last_ms;
};

void progress_start(struct progress *p, size_t total);
void progress_step(struct progress *p, bool skipped);
void progress_clear(const struct progress *p); /* before other output on the terminal */
void progress_end(struct progress *p);

#endif
