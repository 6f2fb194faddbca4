/* MME's folders of questions and the result files of its official tool. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/file.h"
#include "core/status.h"
#include "core/text.h"
#include "eval/common/sha256.h"
#include "eval/mme/mme.h"

/* A text file, cut into lines in place. Release with free(text). */
struct lines {
    char *text, *at;
    int number; /* of the line that next_line gave last */
};

static candid_status read_lines(const char *path, struct lines *out, struct eval_source *source, candid_error *error) {
    struct mapped_file file;
    TRY(file_map(path, "a text file of MME", &file, error));
    char *text = malloc(file.size + 1);
    if (text) {
        memcpy(text, file.data ? file.data : (const uint8_t *)"", file.size);
        text[file.size] = '\0';
    }
    const bool nul = file.size > 0 && memchr(file.data, '\0', file.size);
    if (source) {
        *source = (struct eval_source){.path = path};
        sha256_hex(file.data, file.size, source->sha256);
    }
    file_unmap(&file);
    if (!text || nul) {
        char label[208];
        free(text);
        return nul ? fail(error, CANDID_ERROR_FORMAT, "%s: expected text, found a NUL byte",
                          file_label(path, label, sizeof label))
                   : fail_memory(error, "a text file", file.size);
    }
    const bool mark = strncmp(text, "\xEF\xBB\xBF", 3) == 0;
    *out = (struct lines){text, text + (mark ? 3 : 0), 0};
    return CANDID_OK;
}

/* The next line without its break, which may be "\r\n"; NULL at the end. */
static char *next_line(struct lines *l) {
    char *line = l->at;
    if (*line == '\0') {
        return NULL;
    }
    char *end = line + strcspn(line, "\n");
    l->at = *end ? end + 1 : end;
    *end = '\0';
    if (end > line && end[-1] == '\r') {
        end[-1] = '\0';
    }
    l->number++;
    return line;
}

/* Cuts a line at its tabs into at most n columns; the number of columns there are. */
static int split_columns(char *line, char *columns[], int n) {
    int found = 0;
    for (char *column = line; column; found++) {
        char *tab = strchr(column, '\t');
        if (found < n) {
            columns[found] = column;
        }
        if (tab) {
            *tab++ = '\0';
        }
        column = tab;
    }
    return found;
}

static const char *label_of(const char *gold) {
    return strcasecmp(gold, "yes") == 0 ? "yes" : strcasecmp(gold, "no") == 0 ? "no" : NULL;
}

/* line 0: the file as a whole. */
static candid_status wrong_line(const char *path, int line, const char *expected, const char *found,
                                candid_error *error) {
    char label[208];
    struct printable p;
    char number[16] = "";
    if (line > 0) {
        snprintf(number, sizeof number, ":%d", line);
    }
    return fail(error, CANDID_ERROR_FORMAT, "%s%s: expected %s, found \"%s\"", file_label(path, label, sizeof label),
                number, expected, printable_string(&p, found));
}

/* ---- result files ---- */

/* The sub-task that a file is named after, NULL: none. */
static const char *subtask_of(const char *path) {
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    for (int s = 0; s < MME_SUBTASKS; s++) {
        const size_t n = strlen(mme_subtasks[s]);
        if (strncmp(name, mme_subtasks[s], n) == 0 && strcmp(name + n, ".txt") == 0) {
            return mme_subtasks[s];
        }
    }
    return NULL;
}

static candid_status add_result(const char *path, const char *subtask, const struct lines *lines, char *line,
                                struct eval_items *items, candid_error *error) {
    char *columns[4] = {NULL};
    char id[80];
    const int n = split_columns(line, columns, 4);
    if (n != 3 && n != 4) {
        return wrong_line(path, lines->number, "image, question, gold and answer between single tabs", line, error);
    }
    const char *label = label_of(columns[2]);
    if (!label) {
        return wrong_line(path, lines->number, "Yes or No in the third column", columns[2], error);
    }
    snprintf(id, sizeof id, "%s/%d", subtask, lines->number);
    const struct eval_item item = {.id = id,
                                   .image = columns[0],
                                   .split = subtask,
                                   .question = columns[1],
                                   .label = label,
                                   .answer = n == 4 ? columns[3] : NULL};
    return items_add(items, &item, error);
}

candid_status mme_read_results(const char *path, struct eval_items *items, candid_error *error) {
    const char *subtask = subtask_of(path);
    if (!subtask) {
        return wrong_line(path, 0, "a file named after a sub-task of MME (existence.txt)", path, error);
    }
    struct lines lines;
    struct eval_source source;
    TRY(read_lines(path, &lines, &source, error));
    const size_t begin = items->n;
    candid_status status = CANDID_OK;
    for (char *line; status == CANDID_OK && (line = next_line(&lines));) {
        status = add_result(path, subtask, &lines, line, items, error);
    }
    source.n_lines = items->n - begin;
    if (status == CANDID_OK && source.n_lines % 2 != 0) {
        status = wrong_line(path, lines.number, "two lines per image", "an odd number", error);
    }
    free(lines.text);
    return status == CANDID_OK ? items_add_source(items, &source, error) : status;
}

/* Text without tabs and line breaks. */
static bool print_cell(FILE *to, const char *text, char end) {
    for (; *text; text++) {
        if (putc(strchr("\t\r\n", *text) ? ' ' : *text, to) == EOF) {
            return false;
        }
    }
    return putc(end, to) != EOF;
}

static candid_status write_subtask(const char *path, const char *subtask, const struct eval_items *items,
                                   candid_error *error) {
    FILE *file = NULL;
    bool ok = true;
    for (size_t i = 0; ok && i < items->n; i++) {
        const struct eval_item *item = &items->items[i];
        if (!item->split || strcmp(item->split, subtask) != 0) {
            continue;
        }
        file = file ? file : fopen(path, "w");
        const char *slash = item->image ? strrchr(item->image, '/') : NULL;
        ok = file &&
             print_cell(file,
                        slash         ? slash + 1
                        : item->image ? item->image
                                      : "",
                        '\t') &&
             print_cell(file, item->question ? item->question : "", '\t') &&
             print_cell(file, strcmp(item->label, "yes") == 0 ? "Yes" : "No", '\t') &&
             print_cell(file, item->answer, '\n');
    }
    ok = (!file || fclose(file) == 0) && ok;
    char label[208];
    return ok ? CANDID_OK
              : fail(error, CANDID_ERROR_IO, "cannot write %s: %s", file_label(path, label, sizeof label),
                     strerror(errno));
}

candid_status mme_write_results(const char *folder, const struct eval_items *items, candid_error *error) {
    for (size_t i = 0; i < items->n; i++) {
        if (!items->items[i].answer || !items->items[i].label) {
            return fail(error, CANDID_ERROR_FORMAT,
                        "question %zu of %zu has no %s, which MME's official tool cannot read", i + 1, items->n,
                        items->items[i].answer ? "label" : "answer");
        }
    }
    for (int s = 0; s < MME_SUBTASKS; s++) {
        char name[64], *path;
        snprintf(name, sizeof name, "%s.txt", mme_subtasks[s]);
        TRY(file_join(folder, name, &path, error));
        const candid_status status = write_subtask(path, mme_subtasks[s], items, error);
        free(path);
        TRY(status);
    }
    return CANDID_OK;
}

/* ---- folders ---- */

static int compare_names(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_text(const struct dirent *entry) {
    const size_t n = strlen(entry->d_name);
    return n > 4 && entry->d_name[0] != '.' && strcmp(entry->d_name + n - 4, ".txt") == 0;
}

/* Where a sub-task's texts and images are. */
struct place {
    const char *root, *subtask;
    bool split;     /* images/ and questions_answers_YN/ */
    char path[512]; /* scratch */
};

/* The image that belongs to the text file `name`, relative to the root; NULL: none is there. */
static const char *find_image(struct place *p, const char *name) {
    static const char *const endings[] = {".jpg", ".png", ".jpeg", ".JPG", ".PNG", ".JPEG"};
    const size_t n_root = strlen(p->root) + 1;
    for (size_t e = 0; e < sizeof endings / sizeof *endings; e++) {
        const int n = snprintf(p->path, sizeof p->path, "%s/%s/%s%.*s%s", p->root, p->subtask,
                               p->split ? "images/" : "", (int)strlen(name) - 4, name, endings[e]);
        if (n > 0 && (size_t)n < sizeof p->path && file_exists(p->path)) {
            return p->path + n_root;
        }
    }
    return NULL;
}

/* The two questions of one text file. */
static candid_status read_text(struct place *p, const char *name, struct eval_items *items, struct sha256 *checksum,
                               candid_error *error) {
    char path[512], id[352];
    if (snprintf(path, sizeof path, "%s/%s/%s%s", p->root, p->subtask, p->split ? "questions_answers_YN/" : "", name) >=
        (int)sizeof path) {
        return fail(error, CANDID_ERROR_IO, "%s/%s: the path is too long", p->subtask, name);
    }
    const char *image = find_image(p, name);
    if (!image) {
        return wrong_line(path, 0, "an image of the same name (.jpg, .png)", "none", error);
    }
    struct lines lines;
    TRY(read_lines(path, &lines, NULL, error));
    sha256_add(checksum, lines.text, strlen(lines.text));
    candid_status status = CANDID_OK;
    int n = 0;
    for (char *line; status == CANDID_OK && (line = next_line(&lines));) {
        char *columns[2] = {NULL};
        if (*line == '\0') {
            continue;
        }
        const int n_columns = split_columns(line, columns, 2);
        const char *label = n_columns == 2 ? label_of(columns[1]) : NULL;
        if (!label) {
            status = wrong_line(path, lines.number, "a question, a tab, and Yes or No",
                                n_columns == 2 ? columns[1] : line, error);
            break;
        }
        snprintf(id, sizeof id, "%s/%.250s/%d", p->subtask, name, ++n);
        const struct eval_item item = {
            .id = id, .image = image, .split = p->subtask, .question = columns[0], .label = label};
        status = items_add(items, &item, error);
    }
    free(lines.text);
    if (status == CANDID_OK && n != 2) {
        status = wrong_line(path, lines.number, "two questions", n < 2 ? "fewer" : "more", error);
    }
    return status;
}

static candid_status read_subtask(struct place *p, struct eval_items *items, struct sha256 *checksum,
                                  candid_error *error) {
    char folder[512];
    snprintf(folder, sizeof folder, "%s/%s/questions_answers_YN", p->root, p->subtask);
    p->split = file_is_directory(folder);
    if (!p->split) {
        snprintf(folder, sizeof folder, "%s/%s", p->root, p->subtask);
    }
    struct dirent **entries;
    const int n = scandir(folder, &entries, is_text, compare_names);
    candid_status status = CANDID_OK;
    for (int i = 0; i < n; i++) {
        if (status == CANDID_OK) {
            status = read_text(p, entries[i]->d_name, items, checksum, error);
        }
        free(entries[i]);
    }
    if (n >= 0) {
        free(entries);
    }
    return n > 0 ? status : wrong_line(folder, 0, "text files with questions", "none", error);
}

static bool is_wanted(const char *const *only, const char *subtask) {
    for (; only && *only; only++) {
        if (strcmp(*only, subtask) == 0) {
            return true;
        }
    }
    return !only;
}

candid_status mme_read_folder(const char *folder, const char *const *only, struct eval_items *items,
                              candid_error *error) {
    const size_t begin = items->n;
    struct sha256 checksum;
    sha256_begin(&checksum);
    for (int s = 0; s < MME_SUBTASKS; s++) {
        struct place p = {.root = folder, .subtask = mme_subtasks[s]};
        snprintf(p.path, sizeof p.path, "%s/%s", folder, mme_subtasks[s]);
        if (is_wanted(only, mme_subtasks[s]) && file_is_directory(p.path)) {
            TRY(read_subtask(&p, items, &checksum, error));
        }
    }
    if (items->n == begin) {
        return wrong_line(folder, 0, "folders of MME's sub-tasks (existence, count, …)", "none", error);
    }
    struct eval_source source = {.path = folder, .n_lines = items->n - begin};
    sha256_end(&checksum, source.sha256);
    return items_add_source(items, &source, error);
}
