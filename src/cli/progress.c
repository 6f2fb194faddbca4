/* Progress bar. */
#include "cli/progress.h"

#include <stdio.h>
#include <unistd.h>

#include "core/clock.h"

#define BAR_WIDTH 24

static void draw(struct progress *p) {
    const double now = clock_ms(), seconds = (now - p->start_ms) / 1e3;
    const size_t worked = p->done - p->skipped;
    const double rate = seconds > 0 ? (double)worked / seconds : 0;
    char bar[BAR_WIDTH + 1];
    const size_t filled = p->total ? p->done * BAR_WIDTH / p->total : 0;
    for (size_t i = 0; i < BAR_WIDTH; i++) {
        bar[i] = i < filled ? '#' : '.';
    }
    bar[BAR_WIDTH] = '\0';
    fprintf(stderr, "\r\033[K[%s] %zu/%zu", bar, p->done, p->total);
    if (worked > 0 && rate > 0) {
        const long left = (long)((double)(p->total - p->done) / rate + 0.5);
        fprintf(stderr, "  %.2f images/s  ETA %ld:%02ld:%02ld", rate, left / 3600, left / 60 % 60, left % 60);
    }
    fflush(stderr);
    p->last_ms = now;
}

void progress_start(struct progress *p, size_t total) {
    *p = (struct progress){.shown = total > 1 && isatty(STDERR_FILENO), .total = total, .start_ms = clock_ms()};
    if (p->shown) {
        draw(p);
    }
}

void progress_step(struct progress *p, bool skipped) {
    p->done++;
    p->skipped += skipped;
    if (p->shown && (clock_ms() - p->last_ms > 100 || p->done == p->total)) {
        draw(p);
    }
}

void progress_clear(const struct progress *p) {
    if (p->shown) {
        fputs("\r\033[K", stderr);
        fflush(stderr);
    }
}

void progress_end(struct progress *p) {
    if (p->shown) {
        draw(p);
        fputc('\n', stderr);
    }
}
