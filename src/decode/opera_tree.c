/* The tree of generated tokens. */
#include "decode/opera_tree.h"

#include <limits.h>
#include <stdlib.h>

#include "core/status.h"

static candid_status grow(struct token_tree *t, candid_error *error) {
    const int capacity = t->capacity > INT_MAX / 2 ? INT_MAX : t->capacity > 0 ? 2 * t->capacity : 64;
    struct tree_node *nodes = realloc(t->nodes, (size_t)capacity * sizeof *nodes);
    if (!nodes) {
        return fail_memory(error, "generated tokens", (size_t)capacity * sizeof *nodes);
    }
    t->nodes = nodes;
    t->capacity = capacity;
    return CANDID_OK;
}

candid_status tree_add(struct token_tree *t, int parent, int32_t token, int *node, candid_error *error) {
    if (t->n_released > 0) {
        *node = t->released;
        t->released = t->nodes[*node].parent;
        t->n_released--;
    } else {
        if (t->n == t->capacity) {
            TRY(grow(t, error));
        }
        *node = t->n++;
    }
    t->nodes[*node] =
        (struct tree_node){.token = token, .parent = parent, .index = tree_length(t, parent), .n_owners = 1};
    tree_own(t, parent);
    return CANDID_OK;
}

void tree_own(struct token_tree *t, int node) {
    if (node != TREE_ROOT) {
        t->nodes[node].n_owners++;
    }
}

void tree_release(struct token_tree *t, int node) {
    while (node != TREE_ROOT && --t->nodes[node].n_owners == 0) {
        struct tree_node *gone = &t->nodes[node];
        const int parent = gone->parent;
        free(gone->products);
        gone->products = NULL;
        if (t->on_release) {
            t->on_release(t->user_data, node);
        }
        gone->parent = t->released;
        t->released = node;
        t->n_released++;
        node = parent;
    }
}

int tree_length(const struct token_tree *t, int node) {
    return node == TREE_ROOT ? 0 : t->nodes[node].index + 1;
}

void tree_path(const struct token_tree *t, int node, int32_t *ids) {
    for (; node != TREE_ROOT; node = t->nodes[node].parent) {
        ids[t->nodes[node].index] = t->nodes[node].token;
    }
}

void tree_free(struct token_tree *t) {
    free(t->nodes);
    t->nodes = NULL;
    t->n = t->capacity = t->n_released = 0;
}
