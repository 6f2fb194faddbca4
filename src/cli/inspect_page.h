/* Building blocks of the page of candid inspect. A page is written to a FILE; errors show in ferror(). */
#ifndef CANDID_CLI_INSPECT_PAGE_H
#define CANDID_CLI_INSPECT_PAGE_H

#include <stdio.h>

#include "cli/inspect.h"

/* Text with what HTML would read as its own replaced, line ends as <br>; bytes that are not printable ASCII or UTF-8
 * become '?'. */
void page_text(FILE *f, const char *text, size_t size);
void page_string(FILE *f, const char *text);

/* "data:image/png;base64,…" of a picture; channels 3 or 4. */
candid_status page_png(FILE *f, const uint8_t *pixels, int width, int height, int channels, candid_error *error);

/* The heat map of cells over the image, `side` pixels at its longer side; the browser draws it larger. */
candid_status page_heat(FILE *f, const struct inspection *in, const float *cells, float full, int side,
                        candid_error *error);

/* A map of heads, one square per layer and head, as SVG. */
void page_heads(FILE *f, const struct inspection *in, const float *values, float most, const char *title,
                const char *about);

/* The image with the sinks framed. */
void page_sinks(FILE *f, const struct inspection *in);

/* What each method did, or why it did nothing, in sentences. interventions: as in candid_result. */
void page_interventions(FILE *f, const char *interventions);

#endif
