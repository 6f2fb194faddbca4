/* Segments of a pass: what the host says of its rows, checked. */
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "host/array.h"
#include "host/pass.h"

static candid_status read_segment(const candid_pass *p, candid_segment s, struct pass_segment *out,
                                  candid_error *error) {
    const struct {
        const char *name;
        int32_t value, least;
    } fields[] = {{"batch", s.batch, 0},
                  {"first_row", s.first_row, 0},
                  {"n_rows", s.n_rows, 1},
                  {"first_index", s.first_index, 0},
                  {"key_offset", s.key_offset, 0}};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        if (fields[i].value < fields[i].least || fields[i].value > MOST_ROWS) {
            return fail(error, CANDID_ERROR_ARGUMENT, "candid_segment.%s: expected %d to %d, found %d", fields[i].name,
                        fields[i].least, MOST_ROWS, fields[i].value);
        }
    }
    if (s.sequence && s.sequence->task->plugin != p->plugin) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_segment.sequence belongs to another plugin than the pass");
    }
    if (s.role < 0 || s.role >= CANDID_ROLE_COUNT) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_segment.role: expected 0 to %d, found %d",
                    CANDID_ROLE_COUNT - 1, (int)s.role);
    }
    if (s.n_keys < s.first_index + s.n_rows || s.n_keys > MOST_ROWS) {
        return fail(error, CANDID_ERROR_ARGUMENT,
                    "candid_segment.n_keys: expected the keys up to the last row's own, %d or more, found %d",
                    s.first_index + s.n_rows, s.n_keys);
    }
    *out = (struct pass_segment){.sequence = s.sequence,
                                 .role = (enum plan_role)s.role,
                                 .batch = s.batch,
                                 .first_row = s.first_row,
                                 .n_rows = s.n_rows,
                                 .first_index = s.first_index,
                                 .n_keys = s.n_keys,
                                 .key_offset = s.key_offset};
    return CANDID_OK;
}

/* The prompt's rows that this segment and its neighbours of the same prompt hold. */
static void prompt_rows_around(const candid_pass *p, size_t i, int *begin, int *end) {
    const struct pass_segment *s = p->segments, *a = &s[i];
    size_t first = i, last = i;
    const int n_prompt = sequence_prompt_rows(a->sequence, a->role);
    while (first > 0 && s[first - 1].sequence == a->sequence && s[first - 1].role == a->role &&
           s[first].first_index < n_prompt) {
        first--;
    }
    while (last + 1 < p->n_segments && s[last + 1].sequence == a->sequence && s[last + 1].role == a->role &&
           s[last + 1].first_index < n_prompt) {
        last++;
    }
    *begin = s[first].first_index;
    *end = s[last].first_index + s[last].n_rows;
}

/* Whether rows come that stand behind some of the prompt which a method would have measured and never saw. */
static bool leaves_out_rows(const candid_pass *p, size_t i, int begin) {
    const struct pass_segment *s = &p->segments[i];
    const struct plan *plan = s->sequence->plan;
    const bool first = i == 0 || s[-1].sequence != s->sequence || s[-1].role != s->role; /* others follow on it */
    const bool measures =
        plan_has(plan, PLAN_PROBE_PEAKS) || plan_has(plan, PLAN_PROBE_COLUMNS) || plan_has(plan, PLAN_PROBE_HEADS);
    return first && measures && s->sequence->n_shown < s->sequence->n_prompt && begin > s->sequence->n_shown;
}

candid_status pass_check_prompt(const candid_pass *p, size_t i, candid_error *error) {
    const struct pass_segment *s = &p->segments[i];
    const struct plan *plan = s->sequence->plan;
    const int n_prompt = sequence_prompt_rows(s->sequence, s->role);
    int begin, end;
    prompt_rows_around(p, i, &begin, &end);
    if (s->role != ROLE_MAIN) {
        if (!plan || !plan->companions[s->role]) {
            return fail(error, CANDID_ERROR_ARGUMENT, "candid_segment.role: the sequence has no companion %d",
                        (int)s->role);
        }
        if (begin != 0 || end != n_prompt) {
            return fail(error, CANDID_ERROR_ARGUMENT,
                        "candid_segment: expected all %d rows of a companion, found rows %d to %d", n_prompt, begin,
                        end - 1);
        }
        return CANDID_OK;
    }
    if (leaves_out_rows(p, i, begin)) {
        return fail(error, CANDID_ERROR_ARGUMENT,
                    "candid_segment: a method measures the prompt: expected its rows from %d on, found row %d",
                    s->sequence->n_shown, begin);
    }
    if (!plan || s->first_index >= n_prompt) {
        return CANDID_OK;
    }
    if (plan->whole_prompt && (begin != 0 || end < n_prompt)) {
        return fail(error, CANDID_ERROR_ARGUMENT,
                    "candid_segment: a method needs all %d rows of the prompt in one pass, found rows %d to %d",
                    n_prompt, begin, end - 1);
    }
    for (int role = ROLE_MAIN + 1; role < ROLE_COUNT; role++) {
        if (plan->companions[role] && !s->sequence->companion_ran[role]) {
            return fail(error, CANDID_ERROR_ARGUMENT,
                        "candid_segment: companion %d must have run before the prompt (see candid_run.companions)",
                        role);
        }
    }
    return CANDID_OK;
}

/* Copies a segment's key columns behind `used` others. */
static candid_status copy_columns(candid_pass *p, struct pass_segment *s, const int32_t *columns, size_t used,
                                  candid_error *error) {
    int *to = p->columns + used;
    for (int i = 0; i < s->n_keys; i++) {
        if (columns[i] < 0 || columns[i] > MOST_ROWS) {
            return fail(error, CANDID_ERROR_ARGUMENT, "candid_segment.key_columns[%d]: expected 0 to %d, found %d", i,
                        MOST_ROWS, columns[i]);
        }
        to[i] = columns[i];
    }
    s->key_columns = to;
    return CANDID_OK;
}

/* No column twice. Columns usually ascend, which needs no memory to see. */
static candid_status check_columns(const struct pass_segment *s, candid_error *error) {
    int highest = -1;
    bool ascending_ = true;
    for (int i = 0; s->key_columns && i < s->n_keys; i++) {
        ascending_ = ascending_ && s->key_columns[i] > highest;
        highest = s->key_columns[i] > highest ? s->key_columns[i] : highest;
    }
    if (ascending_) {
        return CANDID_OK;
    }
    uint8_t *taken = calloc((size_t)highest + 1, 1);
    if (!taken) {
        return fail_memory(error, "key columns", (size_t)highest + 1);
    }
    bool twice = false;
    for (int i = 0; i < s->n_keys; i++) {
        twice = twice || taken[s->key_columns[i]];
        taken[s->key_columns[i]] = 1;
    }
    free(taken);
    return twice ? fail(error, CANDID_ERROR_ARGUMENT, "candid_segment.key_columns: a column occurs twice") : CANDID_OK;
}

/* Segments that overlap, or parts of a sequence that do not stand together. */
static candid_status check_segments(const candid_pass *p, candid_error *error) {
    for (size_t i = 0; i < p->n_segments; i++) {
        const struct pass_segment *a = &p->segments[i];
        for (size_t j = 0; j < i; j++) {
            const struct pass_segment *b = &p->segments[j];
            if (a->batch == b->batch && a->first_row < b->first_row + b->n_rows &&
                b->first_row < a->first_row + a->n_rows) {
                return fail(error, CANDID_ERROR_ARGUMENT, "candid_segment: segments %zu and %zu have rows in common", j,
                            i);
            }
            if (a->sequence && a->sequence == b->sequence && p->segments[i - 1].sequence != a->sequence) {
                return fail(error, CANDID_ERROR_ARGUMENT,
                            "candid_segment: segments of one sequence must follow each other, found %zu and %zu", j, i);
            }
            if (j + 1 == i && a->sequence && a->sequence == b->sequence && a->role == b->role &&
                a->first_index < sequence_prompt_rows(a->sequence, a->role) &&
                a->first_index != b->first_index + b->n_rows) {
                return fail(
                    error, CANDID_ERROR_ARGUMENT,
                    "candid_segment: segment %zu: rows of one prompt must follow each other, %d expected, found %d", i,
                    b->first_index + b->n_rows, a->first_index);
            }
        }
    }
    return CANDID_OK;
}

/* Which rows have logits that count, also of sequences that nothing is done to. */
static void count_last_rows(candid_pass *p) {
    for (size_t i = 0; i < p->n_segments; i++) {
        struct pass_segment *s = &p->segments[i];
        const int n_before = s->sequence ? sequence_prompt_rows(s->sequence, s->role) - 1 - s->first_index : s->n_rows;
        s->n_last = n_before < 0 ? s->n_rows : n_before < s->n_rows ? s->n_rows - n_before : 0;
    }
    for (size_t i = 0; i < p->n_segments; i++) {
        struct pass_segment *s = &p->segments[i];
        for (size_t j = 0; j < p->n_segments; j++) {
            const int n = p->segments[j].batch == s->batch ? p->segments[j].n_last : 0;
            s->last_at += j < i ? n : 0;
            s->n_last_all += n;
        }
    }
}

candid_status pass_read_segments(candid_pass *p, const candid_segment *given, size_t n, candid_error *error) {
    candid_segment s;
    size_t n_columns = 0;
    TRY(plan_room(&p->segments, &p->segment_capacity, n, sizeof *p->segments, error));
    for (size_t i = 0; i < n; i++) {
        TRY(array_read(&s, sizeof s, given, i, "candid_segment", error));
        TRY(read_segment(p, s, &p->segments[i], error));
        n_columns += s.key_columns ? (size_t)s.n_keys : 0;
    }
    TRY(plan_room(&p->columns, &p->column_capacity, n_columns, sizeof *p->columns, error));
    n_columns = 0;
    for (size_t i = 0; i < n; i++) {
        TRY(array_read(&s, sizeof s, given, i, "candid_segment", error));
        if (s.key_columns) {
            TRY(copy_columns(p, &p->segments[i], s.key_columns, n_columns, error));
            TRY(check_columns(&p->segments[i], error));
            n_columns += (size_t)s.n_keys;
        }
    }
    p->n_segments = n;
    TRY(check_segments(p, error));
    count_last_rows(p);
    return CANDID_OK;
}
