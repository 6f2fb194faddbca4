/* Where something stands in JSON text: cJSON keeps no positions, and messages about a file name the line. */
#ifndef CANDID_CORE_JSON_LINES_H
#define CANDID_CORE_JSON_LINES_H

#include <stddef.h>

/* Line, counted from 1, of the byte at `offset`; of the last byte when the offset is beyond it. */
int json_line_at(const char *text, size_t size, size_t offset);

/*
 * Line on which an item begins, a member of an object with its key. `path` leads there from the root: for each of
 * `depth` levels the index of the member or element in its container, in the order of cJSON's children. Indices and not
 * names, because a name may stand there twice. The text is one that cJSON has accepted; in any other, and for a path
 * that leads nowhere, the line is where the search ended.
 */
int json_line_of(const char *text, size_t size, const int *path, int depth);

#endif
