/*
 * Results of a run: a file of JSON lines, one per question, that grows by whole lines only. A killed run leaves whole
 * lines and at most one torn one, which resuming cuts off.
 *
 *   {"run": "9c1a2b3d", "index": 0, "id": "1", "split": "random", "image": "a.jpg", "question": "Is there …?",
 *    "label": "yes", "answer": "Yes", "tokens": 2, "finish": "eos", "fingerprint": "414d5d4f"}
 *
 * A question that failed has "error" in place of what follows "label". The first line of each image also tells what the
 * image's questions took: "work": {"images", "encoded", "prompt_tokens", "prefilled_tokens", "generated_tokens",
 * "seconds", "encode_s", "prefill_s", "decode_s"}.
 */
#ifndef CANDID_EVAL_RUN_RESULTS_H
#define CANDID_EVAL_RUN_RESULTS_H

#include <stdint.h>

#include "eval/common/items.h"

/* What was done; of an image or of all. prompt_tokens: what one question at a time would read, each split by itself. */
struct eval_work {
    int64_t images, encoded, prompt_tokens, prefilled_tokens, generated_tokens;
    double seconds, encode_s, prefill_s, decode_s;
};

void work_add(struct eval_work *sum, const struct eval_work *w);
cJSON *work_json(const struct eval_work *w);

/* What a results file holds, by index of the item. Start from {0}; release with held_free. */
struct eval_held {
    size_t n;              /* items there are */
    bool *held;            /* [n] */
    char **error;          /* [n] why it failed, or NULL */
    uint32_t *fingerprint; /* [n] */
    struct eval_work work;
    size_t n_held, n_failed;
};

/*
 * Reads a results file, sets the answers of `items`, adds to *held. A line that is none of ours, of another run, about
 * another question than items[index], or about an index that is held already is a CANDID_ERROR_FORMAT naming the line.
 * *torn: bytes of an unfinished last line; NULL: that, too, is an error.
 */
candid_status results_read(const char *path, const char *run, struct eval_items *items, struct eval_held *held,
                           size_t *torn, candid_error *error);

/* Makes room for n items. */
candid_status held_make(struct eval_held *held, size_t n, candid_error *error);
void held_free(struct eval_held *held);

/* An open results file. */
struct results_file {
    const char *path;
    int fd;
};

/* Opens for appending. resume: after its whole lines, whose content goes to `items` and `held`; otherwise a file with
 * results is an error. */
candid_status results_open(const char *path, const char *run, bool resume, struct eval_items *items,
                           struct eval_held *held, struct results_file *out, candid_error *error);

/* Appends text of whole lines; where that fails the file ends with the line before. */
candid_status results_append(const struct results_file *file, const char *text, size_t size, candid_error *error);

/* Closes; reports what the system could not write. */
candid_status results_close(struct results_file *file, candid_error *error);

/* Writes a file whole, under a temporary name first. */
candid_status file_write_whole(const char *path, const char *text, candid_error *error);

#endif
