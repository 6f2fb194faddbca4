/*
 * Encoding and decoding of the SPM tokenizer.
 *
 * Encoding: special pieces are cut out of the text; each rest gets its spaces replaced by U+2581, starts as one symbol
 * per character, and the adjacent pair whose concatenation is the best scored piece is merged until no pair is a piece.
 * Symbols that are no piece become byte tokens.
 */
#include "lm/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "lm/tokenizer_vocab.h"

#define SPACE      "\xe2\x96\x81" /* U+2581, SentencePiece's visible space */
#define SPACE_SIZE 3

/* Symbols and heap entries hold 32-bit offsets into the text after its spaces grew to three bytes. */
#define MAX_TEXT ((size_t)INT32_MAX / SPACE_SIZE - 1)

/* ---- growing arrays ---- */

/* Makes room for one more element of `size` bytes. */
static candid_status grow(void **data, size_t count, size_t *capacity, size_t size, const char *what,
                          candid_error *error) {
    if (count < *capacity) {
        return CANDID_OK;
    }
    const size_t more = *capacity < 32 ? 64 : 2 * *capacity;
    if (more > SIZE_MAX / 2 / size) {
        return fail_memory(error, what, SIZE_MAX);
    }
    void *grown = realloc(*data, more * size);
    if (!grown) {
        return fail_memory(error, what, more * size);
    }
    *data = grown;
    *capacity = more;
    return CANDID_OK;
}

candid_status token_list_push(struct token_list *list, int32_t id, candid_error *error) {
    void *ids = list->ids;
    const candid_status status = grow(&ids, list->count, &list->capacity, sizeof *list->ids, "a token list", error);
    list->ids = ids;
    if (status == CANDID_OK) {
        list->ids[list->count++] = id;
    }
    return status;
}

void token_list_free(struct token_list *list) {
    if (list) {
        free(list->ids);
        *list = (struct token_list){0};
    }
}

/* ---- merging ---- */

/* A run of text; a linked list in text order. size 0: merged into its left neighbour. */
struct symbol {
    int32_t prev, next; /* -1: none */
    uint32_t begin, size;
};

/* A pair of neighbours that form a piece. Stale once either has changed, told by `size`, the sum of both. */
struct pair {
    float score;
    int32_t left, right;
    uint32_t size;
};

/* Work buffers of one encode call, reused for all its stretches of text. */
struct merger {
    const struct tokenizer *t;
    char *text; /* with spaces replaced */
    size_t text_size, text_capacity;
    struct symbol *symbols;
    size_t n_symbols, symbol_capacity;
    struct pair *heap; /* binary max-heap */
    size_t n_heap, heap_capacity;
    uint32_t *split; /* [n_vocab] size of the left half from which an unused piece was merged; NULL if not needed */
    struct symbol *pending; /* stack of resegment */
    size_t n_pending, pending_capacity;
};

static void merger_free(struct merger *m) {
    free(m->text);
    free(m->symbols);
    free(m->heap);
    free(m->split);
    free(m->pending);
}

/* Best score first, then the left-most. */
static bool before(const struct pair *a, const struct pair *b) {
    return a->score > b->score || (a->score == b->score && a->left < b->left);
}

static candid_status heap_push(struct merger *m, struct pair pair, candid_error *error) {
    void *heap = m->heap;
    const candid_status status = grow(&heap, m->n_heap, &m->heap_capacity, sizeof pair, "merging tokens", error);
    m->heap = heap;
    TRY(status);
    size_t i = m->n_heap++;
    while (i > 0 && before(&pair, &m->heap[(i - 1) / 2])) {
        m->heap[i] = m->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    m->heap[i] = pair;
    return CANDID_OK;
}

static struct pair heap_pop(struct merger *m) {
    const struct pair top = m->heap[0], last = m->heap[--m->n_heap];
    size_t i = 0;
    for (size_t child = 1; child < m->n_heap; child = 2 * i + 1) {
        if (child + 1 < m->n_heap && before(&m->heap[child + 1], &m->heap[child])) {
            child++;
        }
        if (!before(&m->heap[child], &last)) {
            break;
        }
        m->heap[i] = m->heap[child];
        i = child;
    }
    m->heap[i] = last;
    return top;
}

static candid_status try_pair(struct merger *m, int32_t left, int32_t right, candid_error *error) {
    if (left < 0 || right < 0) {
        return CANDID_OK;
    }
    const struct tokenizer *t = m->t;
    const struct symbol *l = &m->symbols[left], *r = &m->symbols[right];
    const uint32_t size = l->size + r->size;
    const int32_t id = vocab_find(t, m->text + l->begin, size);
    if (id < 0) {
        return CANDID_OK;
    }
    float score = t->pieces[id].score;
    if (t->merges) {
        const int32_t left_id = vocab_find(t, m->text + l->begin, l->size);
        const int32_t right_id = vocab_find(t, m->text + r->begin, r->size);
        const int32_t rank = left_id >= 0 && right_id >= 0 ? merge_rank(t, left_id, right_id) : -1;
        if (rank < 0) {
            return CANDID_OK;
        }
        score = -(float)rank;
    }
    if (m->split) {
        m->split[id] = l->size;
    }
    return heap_push(m, (struct pair){score, left, right, size}, error);
}

/* Size of the UTF-8 character at `s` (n > 0 bytes left); 1 for a byte that begins no valid character. */
static uint32_t character_size(const char *s, size_t n) {
    const uint8_t *u = (const uint8_t *)s;
    const uint32_t size = u[0] < 0x80 ? 1 : u[0] < 0xc2 ? 0 : u[0] < 0xe0 ? 2 : u[0] < 0xf0 ? 3 : u[0] < 0xf5 ? 4 : 0;
    if (size < 2 || size > n) {
        return 1;
    }
    for (uint32_t i = 1; i < size; i++) {
        if ((u[i] & 0xc0) != 0x80) {
            return 1;
        }
    }
    const bool overlong = (u[0] == 0xe0 && u[1] < 0xa0) || (u[0] == 0xf0 && u[1] < 0x90);
    const bool outside = (u[0] == 0xed && u[1] > 0x9f) || (u[0] == 0xf4 && u[1] > 0x8f); /* surrogates, > U+10FFFF */
    return overlong || outside ? 1 : size;
}

static candid_status split_characters(struct merger *m, candid_error *error) {
    m->n_symbols = 0;
    for (uint32_t at = 0; at < m->text_size;) {
        void *symbols = m->symbols;
        const candid_status status =
            grow(&symbols, m->n_symbols, &m->symbol_capacity, sizeof *m->symbols, "splitting text", error);
        m->symbols = symbols;
        TRY(status);
        const uint32_t size = character_size(m->text + at, m->text_size - at);
        const int32_t i = (int32_t)m->n_symbols++;
        m->symbols[i] = (struct symbol){i - 1, at + size < m->text_size ? i + 1 : -1, at, size};
        at += size;
    }
    return CANDID_OK;
}

static candid_status push_pending(struct merger *m, uint32_t begin, uint32_t size, candid_error *error) {
    void *pending = m->pending;
    const candid_status status =
        grow(&pending, m->n_pending, &m->pending_capacity, sizeof *m->pending, "splitting tokens", error);
    m->pending = pending;
    TRY(status);
    m->pending[m->n_pending++] = (struct symbol){-1, -1, begin, size};
    return CANDID_OK;
}

/* Emits a symbol: its piece; an unused piece by the halves it was merged from; else its bytes. */
static candid_status emit(struct merger *m, const struct symbol *symbol, struct token_list *out, candid_error *error) {
    m->n_pending = 0;
    TRY(push_pending(m, symbol->begin, symbol->size, error));
    while (m->n_pending > 0) {
        const struct symbol part = m->pending[--m->n_pending];
        const int32_t id = vocab_find(m->t, m->text + part.begin, part.size);
        const uint32_t left = id >= 0 && m->split && m->t->pieces[id].type == PIECE_UNUSED ? m->split[id] : 0;
        if (left > 0) {
            TRY(push_pending(m, part.begin + left, part.size - left, error));
            TRY(push_pending(m, part.begin, left, error));
        } else if (id >= 0) {
            TRY(token_list_push(out, id, error));
        } else {
            for (uint32_t i = 0; i < part.size; i++) {
                TRY(token_list_push(out, m->t->byte_ids[(uint8_t)m->text[part.begin + i]], error));
            }
        }
    }
    return CANDID_OK;
}

/* Encodes m->text. */
static candid_status merge(struct merger *m, struct token_list *out, candid_error *error) {
    TRY(split_characters(m, error));
    m->n_heap = 0;
    for (size_t i = 1; i < m->n_symbols; i++) {
        TRY(try_pair(m, (int32_t)i - 1, (int32_t)i, error));
    }
    while (m->n_heap > 0) {
        const struct pair pair = heap_pop(m);
        struct symbol *left = &m->symbols[pair.left], *right = &m->symbols[pair.right];
        if (left->size == 0 || right->size == 0 || left->size + right->size != pair.size) {
            continue;
        }
        left->size += right->size;
        right->size = 0;
        left->next = right->next;
        if (right->next >= 0) {
            m->symbols[right->next].prev = pair.left;
        }
        TRY(try_pair(m, left->prev, pair.left, error));
        TRY(try_pair(m, pair.left, left->next, error));
    }
    for (int32_t i = 0; i >= 0; i = m->symbols[i].next) {
        TRY(emit(m, &m->symbols[i], out, error));
    }
    return CANDID_OK;
}

/* Encodes `size` > 0 bytes without special pieces. */
static candid_status encode_plain(struct merger *m, const char *text, size_t size, bool space_prefix,
                                  struct token_list *out, candid_error *error) {
    size_t wanted = size + (space_prefix ? SPACE_SIZE : 0);
    for (size_t i = 0; i < size; i++) {
        wanted += text[i] == ' ' ? SPACE_SIZE - 1 : 0;
    }
    if (wanted > m->text_capacity) {
        char *grown = realloc(m->text, wanted);
        if (!grown) {
            return fail_memory(error, "the text to tokenize", wanted);
        }
        m->text = grown;
        m->text_capacity = wanted;
    }
    char *to = m->text;
    if (space_prefix) {
        memcpy(to, SPACE, SPACE_SIZE);
        to += SPACE_SIZE;
    }
    for (size_t i = 0; i < size; i++) {
        if (text[i] == ' ') {
            memcpy(to, SPACE, SPACE_SIZE);
            to += SPACE_SIZE;
        } else {
            *to++ = text[i];
        }
    }
    m->text_size = wanted;
    return merge(m, out, error);
}

/* ---- special pieces ---- */

/* A stretch of the text: plain text (id -1) or a special piece. */
struct fragment {
    size_t begin, size;
    int32_t id;
};

struct fragment_list {
    struct fragment *items;
    size_t count, capacity;
};

static candid_status push_fragment(struct fragment_list *list, size_t begin, size_t size, int32_t id,
                                   candid_error *error) {
    void *items = list->items;
    const candid_status status =
        grow(&items, list->count, &list->capacity, sizeof *list->items, "the special tokens of a text", error);
    list->items = items;
    if (status == CANDID_OK) {
        list->items[list->count++] = (struct fragment){begin, size, id};
    }
    return status;
}

static size_t find_piece(const char *text, const struct fragment *f, size_t from, const struct piece *p) {
    const char *found = memmem(text + from, f->begin + f->size - from, p->bytes, p->size);
    return found ? (size_t)(found - text) : SIZE_MAX;
}

/* Cuts all occurrences of piece `id` out of the plain fragments of `list`; `spare` is another list to write to. */
static candid_status cut_piece(const struct tokenizer *t, const char *text, int32_t id, struct fragment_list *list,
                               struct fragment_list *spare, candid_error *error) {
    const struct piece *p = &t->pieces[id];
    bool any = false;
    for (size_t i = 0; i < list->count && !any; i++) {
        const struct fragment *f = &list->items[i];
        any = f->id < 0 && find_piece(text, f, f->begin, p) != SIZE_MAX;
    }
    if (!any) {
        return CANDID_OK;
    }
    spare->count = 0;
    for (size_t i = 0; i < list->count; i++) {
        const struct fragment *f = &list->items[i];
        const size_t end = f->begin + f->size;
        size_t begin = f->begin;
        for (size_t at; f->id < 0 && (at = find_piece(text, f, begin, p)) != SIZE_MAX; begin = at + p->size) {
            if (at > begin) {
                TRY(push_fragment(spare, begin, at - begin, -1, error));
            }
            TRY(push_fragment(spare, at, p->size, id, error));
        }
        if (begin < end) {
            TRY(push_fragment(spare, begin, end - begin, f->id, error));
        }
    }
    const struct fragment_list old = *list;
    *list = *spare;
    *spare = old;
    return CANDID_OK;
}

static candid_status cut_specials(const struct tokenizer *t, const char *text, size_t size, bool parse_special,
                                  struct fragment_list *list, candid_error *error) {
    struct fragment_list spare = {0};
    candid_status status = push_fragment(list, 0, size, -1, error);
    for (int32_t i = 0; i < t->n_specials && status == CANDID_OK; i++) {
        const int32_t id = t->specials[i];
        if (parse_special || t->pieces[id].type == PIECE_USER_DEFINED) {
            status = cut_piece(t, text, id, list, &spare, error);
        }
    }
    free(spare.items);
    return status;
}

/* Written either way. */
static bool begins_with_space(const char *text, size_t size) {
    return text[0] == ' ' || (size >= SPACE_SIZE && memcmp(text, SPACE, SPACE_SIZE) == 0);
}

static candid_status encode_fragments(const struct tokenizer *t, const char *text, const struct fragment_list *list,
                                      bool add_space, struct token_list *out, candid_error *error) {
    struct merger m = {.t = t};
    candid_status status = CANDID_OK;
    if (t->has_unused) {
        m.split = calloc((size_t)t->n_vocab, sizeof *m.split);
        if (!m.split) {
            return fail_memory(error, "merging tokens", (size_t)t->n_vocab * sizeof *m.split);
        }
    }
    bool space_prefix = add_space && t->add_space_prefix;
    for (size_t i = 0; i < list->count && status == CANDID_OK; i++) {
        const struct fragment *f = &list->items[i];
        if (f->id >= 0) {
            status = token_list_push(out, f->id, error);
        } else {
            const bool has_space = t->metaspace && begins_with_space(text + f->begin, f->size);
            status = encode_plain(&m, text + f->begin, f->size, space_prefix && !has_space, out, error);
        }
        space_prefix = t->add_space_prefix && !t->prefix_first; /* further plain text follows a special piece */
    }
    merger_free(&m);
    return status;
}

candid_status tokenizer_encode(const struct tokenizer *t, const char *text, size_t size, bool parse_special,
                               bool add_space, struct token_list *out, candid_error *error) {
    if (size == 0) {
        return CANDID_OK;
    }
    if (size > MAX_TEXT) {
        return fail(error, CANDID_ERROR_ARGUMENT, "cannot tokenize a text of %zu bytes, at most %zu", size, MAX_TEXT);
    }
    const size_t count = out->count;
    struct fragment_list list = {0};
    candid_status status = cut_specials(t, text, size, parse_special, &list, error);
    if (status == CANDID_OK) {
        status = encode_fragments(t, text, &list, add_space, out, error);
    }
    if (status != CANDID_OK) {
        out->count = count;
    }
    free(list.items);
    return status;
}

/* ---- decoding ---- */

size_t tokenizer_piece(const struct tokenizer *t, int32_t id, bool show_control, char *buffer, size_t capacity) {
    if (id < 0 || id >= t->n_vocab) {
        return 0;
    }
    const struct piece *p = &t->pieces[id];
    if (p->type == PIECE_BYTE) {
        if (capacity > 0) {
            buffer[0] = (char)p->byte;
        }
        return 1;
    }
    if (p->type == PIECE_CONTROL || p->type == PIECE_UNKNOWN) {
        if (!show_control) {
            return 0;
        }
        if (capacity > 0) {
            memcpy(buffer, p->bytes, p->size < capacity ? p->size : capacity);
        }
        return p->size;
    }
    size_t n = 0;
    for (size_t i = 0; i < p->size; n++) {
        const bool space = p->size - i >= SPACE_SIZE && memcmp(p->bytes + i, SPACE, SPACE_SIZE) == 0;
        if (n < capacity) {
            buffer[n] = space ? ' ' : p->bytes[i];
        }
        i += space ? SPACE_SIZE : 1;
    }
    return n;
}

/* Whether the text of these ids begins with the space that encoding put there. */
static bool begins_with_prefix(const struct tokenizer *t, const int32_t *ids, size_t n) {
    for (size_t i = 0; i < n && t->add_space_prefix; i++) {
        char first = 0;
        if (tokenizer_piece(t, ids[i], false, &first, 1) > 0) {
            return first == ' ' && t->pieces[ids[i]].type != PIECE_BYTE;
        }
    }
    return false;
}

candid_status tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, char **text, size_t *size,
                               candid_error *error) {
    size_t total = 0;
    for (size_t i = 0; i < n; i++) {
        const size_t piece = tokenizer_piece(t, ids[i], false, NULL, 0);
        if (piece > SIZE_MAX / 2 - total) {
            return fail(error, CANDID_ERROR_ARGUMENT, "the text of %zu tokens is too long", n);
        }
        total += piece;
    }
    char *buffer = malloc(total + 1);
    if (!buffer) {
        return fail_memory(error, "decoded text", total + 1);
    }
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        used += tokenizer_piece(t, ids[i], false, buffer + used, total - used);
    }
    if (begins_with_prefix(t, ids, n)) {
        memmove(buffer, buffer + 1, --used);
    }
    buffer[used] = '\0';
    *text = buffer;
    if (size) {
        *size = used;
    }
    return CANDID_OK;
}
