#include "eval/chair/pickle.h"

#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "core/text.h"

struct machine {
    const uint8_t *bytes;
    size_t size, at;
    const char *const *allowed;
    struct pickle *out;
    uint32_t *stack;
    size_t depth, stack_capacity;
    size_t *marks;
    size_t n_marks, marks_capacity;
    size_t n_states; /* values in states of objects */
    uint32_t *memo;  /* index + 1, 0 for none */
    size_t n_memo, memo_capacity;
    candid_error *error;
};

static candid_status wrong(const struct machine *m, const char *what) {
    return fail(m->error, CANDID_ERROR_FORMAT, "%s: byte %zu of the pickle: %s", m->out->label, m->at, what);
}

/* Room for one more element of *array. */
static candid_status grow(void **array, size_t n, size_t *capacity, size_t element, candid_error *error) {
    if (n < *capacity) {
        return CANDID_OK;
    }
    const size_t wanted = *capacity > 0 ? 2 * *capacity : 64;
    void *grown = realloc(*array, wanted * element);
    if (!grown) {
        return fail_memory(error, "a pickle", wanted * element);
    }
    *array = grown;
    *capacity = wanted;
    return CANDID_OK;
}

static candid_status push(struct machine *m, uint32_t value) {
    TRY(grow((void **)&m->stack, m->depth, &m->stack_capacity, sizeof *m->stack, m->error));
    m->stack[m->depth++] = value;
    return CANDID_OK;
}

/* A new value on the stack. */
static candid_status push_new(struct machine *m, struct pickle_value value) {
    struct pickle *p = m->out;
    TRY(grow((void **)&p->values, p->n, &p->capacity, sizeof *p->values, m->error));
    p->values[p->n] = value;
    return push(m, (uint32_t)p->n++);
}

static candid_status push_kind(struct machine *m, enum pickle_kind kind) {
    return push_new(m, (struct pickle_value){.kind = kind});
}

static candid_status add_child(struct machine *m, uint32_t parent, uint32_t child) {
    struct pickle_value *v = &m->out->values[parent];
    TRY(grow((void **)&v->children, v->n, &v->capacity, sizeof *v->children, m->error));
    v->children[v->n++] = child;
    return CANDID_OK;
}

/* Checks that n values are on the stack above the last mark. */
static candid_status need(const struct machine *m, size_t n) {
    const size_t floor = m->n_marks > 0 ? m->marks[m->n_marks - 1] : 0;
    return m->depth - floor >= n ? CANDID_OK : wrong(m, "values are missing");
}

/* Little-endian number of `n` bytes. */
static candid_status take(struct machine *m, size_t n, uint64_t *out) {
    if (m->size - m->at < n) {
        return wrong(m, "the file ends too early");
    }
    *out = 0;
    for (size_t i = 0; i < n; i++) {
        *out |= (uint64_t)m->bytes[m->at++] << (8 * i);
    }
    return CANDID_OK;
}

/* The rest of the line. */
static candid_status take_line(struct machine *m, const char **text, size_t *n) {
    const uint8_t *start = m->bytes + m->at, *end = memchr(start, '\n', m->size - m->at);
    if (!end) {
        return wrong(m, "the file ends too early");
    }
    *text = (const char *)start;
    *n = (size_t)(end - start);
    m->at += *n + 1;
    return CANDID_OK;
}

/* Text whose length stands before it in `n` bytes. */
static candid_status counted_text(struct machine *m, size_t n) {
    uint64_t size = 0;
    TRY(take(m, n, &size));
    if (size > m->size - m->at || memchr(m->bytes + m->at, '\0', (size_t)size)) {
        return wrong(m, "a text that is cut or has a zero byte");
    }
    const char *text = (const char *)m->bytes + m->at;
    m->at += (size_t)size;
    return push_new(m, (struct pickle_value){.kind = PICKLE_TEXT, .text = text, .size = (size_t)size});
}

static candid_status big_endian_double(struct machine *m) {
    uint64_t little = 0, big = 0;
    double value;
    TRY(take(m, 8, &little));
    for (int i = 0; i < 8; i++) {
        big = big << 8 | (little >> (8 * i) & 0xff);
    }
    memcpy(&value, &big, sizeof value);
    return push_new(m, (struct pickle_value){.kind = PICKLE_FLOAT, .number = value});
}

static candid_status integer(struct machine *m, size_t n) {
    uint64_t bits = 0;
    TRY(take(m, n, &bits));
    return push_new(m,
                    (struct pickle_value){.kind = PICKLE_INTEGER, .integer = n == 4 ? (int32_t)bits : (int64_t)bits});
}

/* LONG1: two's complement of up to 8 bytes. */
static candid_status long_integer(struct machine *m) {
    uint64_t n = 0, bits = 0;
    TRY(take(m, 1, &n));
    if (n > 8) {
        return wrong(m, "a number of more than 8 bytes");
    }
    TRY(take(m, (size_t)n, &bits));
    if (n > 0 && n < 8 && bits >> (8 * n - 1) & 1) {
        bits |= ~UINT64_C(0) << (8 * n);
    }
    return push_new(m, (struct pickle_value){.kind = PICKLE_INTEGER, .integer = (int64_t)bits});
}

/* ---- memo ---- */

static candid_status memo_put(struct machine *m, uint64_t key) {
    TRY(need(m, 1));
    if (key > m->size) {
        return wrong(m, "a memo number beyond the file's size");
    }
    while (m->n_memo <= key) {
        TRY(grow((void **)&m->memo, m->n_memo, &m->memo_capacity, sizeof *m->memo, m->error));
        m->memo[m->n_memo++] = 0;
    }
    m->memo[key] = m->stack[m->depth - 1] + 1;
    return CANDID_OK;
}

static candid_status memo_get(struct machine *m, uint64_t key) {
    if (key >= m->n_memo || m->memo[key] == 0) {
        return wrong(m, "a value that was not stored");
    }
    return push(m, m->memo[key] - 1);
}

/* ---- containers ---- */

static candid_status push_mark(struct machine *m) {
    TRY(grow((void **)&m->marks, m->n_marks, &m->marks_capacity, sizeof *m->marks, m->error));
    m->marks[m->n_marks++] = m->depth;
    return CANDID_OK;
}

static candid_status pop_mark(struct machine *m, size_t *start) {
    if (m->n_marks == 0) {
        return wrong(m, "a mark is missing");
    }
    *start = m->marks[--m->n_marks];
    return CANDID_OK;
}

/* Moves the values from `start` on into the container below them. */
static candid_status fill(struct machine *m, size_t start, bool pairs) {
    const size_t floor = m->n_marks > 0 ? m->marks[m->n_marks - 1] : 0;
    if (start <= floor || (pairs && (m->depth - start) % 2 != 0)) {
        return wrong(m, "values are missing");
    }
    const uint32_t container = m->stack[start - 1];
    const enum pickle_kind kind = m->out->values[container].kind;
    if (kind != PICKLE_OBJECT && kind != (pairs ? PICKLE_DICT : PICKLE_SEQUENCE)) {
        return wrong(m, "values for something that holds none");
    }
    for (size_t i = start; i < m->depth; i++) {
        TRY(add_child(m, container, m->stack[i]));
    }
    m->depth = start;
    return CANDID_OK;
}

static candid_status fill_from_mark(struct machine *m, bool pairs) {
    size_t start = 0;
    TRY(pop_mark(m, &start));
    return fill(m, start, pairs);
}

static candid_status fill_last(struct machine *m, size_t n, bool pairs) {
    TRY(need(m, n + 1));
    return fill(m, m->depth - n, pairs);
}

/* A new container of the values from `start` on. */
static candid_status collect(struct machine *m, enum pickle_kind kind, size_t start) {
    const size_t end = m->depth;
    TRY(push_kind(m, kind));
    const uint32_t container = m->stack[--m->depth];
    for (size_t i = start; i < end; i++) {
        TRY(add_child(m, container, m->stack[i]));
    }
    m->depth = start;
    return push(m, container);
}

static candid_status collect_from_mark(struct machine *m, enum pickle_kind kind) {
    size_t start = 0;
    TRY(pop_mark(m, &start));
    if (kind == PICKLE_DICT && (m->depth - start) % 2 != 0) {
        return wrong(m, "values are missing");
    }
    return collect(m, kind, start);
}

static candid_status collect_last(struct machine *m, enum pickle_kind kind, size_t n) {
    TRY(need(m, n));
    return collect(m, kind, m->depth - n);
}

/* ---- objects ---- */

static candid_status push_name(struct machine *m, const char *module, size_t n_module, const char *name,
                               size_t n_name) {
    for (const char *const *allowed = m->allowed; *allowed; allowed++) {
        const char *blank = strchr(*allowed, ' ');
        if ((size_t)(blank - *allowed) == n_module && memcmp(*allowed, module, n_module) == 0 &&
            strlen(blank + 1) == n_name && memcmp(blank + 1, name, n_name) == 0) {
            return push_new(m, (struct pickle_value){.kind = PICKLE_NAME, .text = *allowed, .size = strlen(*allowed)});
        }
    }
    struct printable p, q;
    return fail(m->error, CANDID_ERROR_FORMAT,
                "%s: byte %zu of the pickle: it wants \"%s.%s\", which NLTK's data does not need: not read",
                m->out->label, m->at, printable(&p, module, n_module), printable(&q, name, n_name));
}

static candid_status global_from_lines(struct machine *m) {
    const char *module = NULL, *name = NULL;
    size_t n_module = 0, n_name = 0;
    TRY(take_line(m, &module, &n_module));
    TRY(take_line(m, &name, &n_name));
    return push_name(m, module, n_module, name, n_name);
}

static candid_status global_from_stack(struct machine *m) {
    TRY(need(m, 2));
    const struct pickle_value module = m->out->values[m->stack[m->depth - 2]];
    const struct pickle_value name = m->out->values[m->stack[m->depth - 1]];
    if (module.kind != PICKLE_TEXT || name.kind != PICKLE_TEXT) {
        return wrong(m, "a class without a name");
    }
    m->depth -= 2;
    return push_name(m, module.text, module.size, name.text, name.size);
}

/* class(arguments): a set becomes its elements, anything else stays as it is. */
static candid_status make_object(struct machine *m) {
    TRY(need(m, 2));
    const uint32_t class = m->stack[m->depth - 2], arguments = m->stack[m->depth - 1];
    const struct pickle_value *name = &m->out->values[class], *list = &m->out->values[arguments];
    if (name->kind != PICKLE_NAME || list->kind != PICKLE_SEQUENCE) {
        return wrong(m, "an object without a class");
    }
    if (pickle_is_text(name, "__builtin__ set") || pickle_is_text(name, "builtins set")) {
        if (list->n > 1 || (list->n == 1 && pickle_child(m->out, list, 0)->kind != PICKLE_SEQUENCE)) {
            return wrong(m, "a set of something that is no list");
        }
        const uint32_t elements = list->n == 1 ? list->children[0] : arguments;
        m->depth -= 2;
        return push(m, elements);
    }
    return collect_last(m, PICKLE_OBJECT, 2);
}

/* Appends the state, a dictionary, to the object's children. */
static candid_status build(struct machine *m) {
    TRY(need(m, 2));
    const uint32_t object = m->stack[m->depth - 2], state = m->stack[--m->depth];
    if (m->out->values[object].kind != PICKLE_OBJECT) {
        return wrong(m, "a state for something that is no object");
    }
    m->n_states += m->out->values[state].n;
    if (m->n_states > m->size) { /* a state is used once */
        return wrong(m, "more state than the file holds");
    }
    for (size_t i = 0; m->out->values[state].kind == PICKLE_DICT && i < m->out->values[state].n; i++) {
        TRY(add_child(m, object, m->out->values[state].children[i]));
    }
    return CANDID_OK;
}

/* ---- opcodes ---- */

static candid_status skip_bytes(struct machine *m, size_t n) {
    uint64_t unused = 0;
    return take(m, n, &unused);
}

static candid_status with_argument(struct machine *m, size_t n, candid_status (*use)(struct machine *, uint64_t)) {
    uint64_t value = 0;
    TRY(take(m, n, &value));
    return use(m, value);
}

static candid_status step(struct machine *m, uint8_t opcode) {
    switch (opcode) {
    case 0x80: return skip_bytes(m, 1); /* PROTO */
    case 0x95: return skip_bytes(m, 8); /* FRAME */
    case '(': return push_mark(m);
    case '0':
        TRY(need(m, 1));
        m->depth--;
        return CANDID_OK; /* POP */
    case 'N': return push_kind(m, PICKLE_NONE);
    case 0x88: /* NEWTRUE */
    case 0x89: return push_new(m, (struct pickle_value){.kind = PICKLE_BOOL, .integer = opcode == 0x88});
    case 'J': return integer(m, 4); /* BININT, BININT1, BININT2, LONG1 */
    case 'K': return integer(m, 1);
    case 'M': return integer(m, 2);
    case 0x8a: return long_integer(m);
    case 'G': return big_endian_double(m);
    case 'U':                             /* SHORT_BINSTRING */
    case 0x8c: return counted_text(m, 1); /* SHORT_BINUNICODE */
    case 'T':                             /* BINSTRING */
    case 'X': return counted_text(m, 4);  /* BINUNICODE */
    case 0x8d: return counted_text(m, 8); /* BINUNICODE8 */
    case 'q': return with_argument(m, 1, memo_put);
    case 'r': return with_argument(m, 4, memo_put);
    case 0x94: return memo_put(m, m->n_memo); /* MEMOIZE */
    case 'h': return with_argument(m, 1, memo_get);
    case 'j': return with_argument(m, 4, memo_get);
    case '}': return push_kind(m, PICKLE_DICT);
    case ']':
    case ')':
    case 0x8f: return push_kind(m, PICKLE_SEQUENCE); /* list, tuple, set */
    case 'd': return collect_from_mark(m, PICKLE_DICT);
    case 'l':
    case 't': return collect_from_mark(m, PICKLE_SEQUENCE);
    case 0x91: return collect_from_mark(m, PICKLE_SEQUENCE); /* FROZENSET */
    case 0x85: return collect_last(m, PICKLE_SEQUENCE, 1);
    case 0x86: return collect_last(m, PICKLE_SEQUENCE, 2);
    case 0x87: return collect_last(m, PICKLE_SEQUENCE, 3);
    case 'a': return fill_last(m, 1, false); /* APPEND */
    case 'e':
    case 0x90: return fill_from_mark(m, false); /* APPENDS, ADDITEMS */
    case 's': return fill_last(m, 2, true);     /* SETITEM */
    case 'u': return fill_from_mark(m, true);   /* SETITEMS */
    case 'c': return global_from_lines(m);
    case 0x93: return global_from_stack(m);
    case 'R':
    case 0x81: return make_object(m); /* REDUCE, NEWOBJ */
    case 'b': return build(m);
    default: return wrong(m, "an opcode that NLTK's data does not need: not read");
    }
}

static candid_status run(struct machine *m) {
    while (m->at < m->size) {
        const uint8_t opcode = m->bytes[m->at++];
        if (opcode == '.') {
            if (m->depth != 1 || m->n_marks != 0) {
                return wrong(m, "it does not end with one value");
            }
            m->out->root = m->stack[0];
            return CANDID_OK;
        }
        TRY(step(m, opcode));
    }
    return wrong(m, "the file ends too early");
}

candid_status pickle_read(const uint8_t *bytes, size_t size, const char *label, const char *const *allowed,
                          struct pickle *out, candid_error *error) {
    *out = (struct pickle){.label = label};
    if (size > UINT32_MAX / 4) {
        return fail(error, CANDID_ERROR_FORMAT, "%s is too large for a pickle of NLTK's data", label);
    }
    struct machine m = {.bytes = bytes, .size = size, .allowed = allowed, .out = out, .error = error};
    const candid_status status = run(&m);
    free(m.stack);
    free(m.marks);
    free(m.memo);
    if (status != CANDID_OK) {
        pickle_free(out);
    }
    return status;
}

void pickle_free(struct pickle *pickle) {
    for (size_t i = 0; i < pickle->n; i++) {
        free(pickle->values[i].children);
    }
    free(pickle->values);
    *pickle = (struct pickle){0};
}

bool pickle_is_text(const struct pickle_value *v, const char *text) {
    return (v->kind == PICKLE_TEXT || v->kind == PICKLE_NAME) && v->size == strlen(text) &&
           memcmp(v->text, text, v->size) == 0;
}

const struct pickle_value *pickle_find(const struct pickle *p, const struct pickle_value *v, const char *key) {
    const size_t first = v->kind == PICKLE_OBJECT ? 2 : 0;
    for (size_t i = first; (v->kind == PICKLE_OBJECT || v->kind == PICKLE_DICT) && i + 1 < v->n; i += 2) {
        if (pickle_is_text(pickle_child(p, v, i), key)) {
            return pickle_child(p, v, i + 1);
        }
    }
    return NULL;
}
