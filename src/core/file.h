/* Files: read-only mappings, and whole small files in memory. */
#ifndef CANDID_CORE_FILE_H
#define CANDID_CORE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "candid/candid.h"

/* data is NULL for an empty file. */
struct mapped_file {
    const uint8_t *data;
    size_t size;
};

/* Maps a regular file. `kind` is what messages call it, such as "a GGUF file". */
candid_status file_map(const char *path, const char *kind, struct mapped_file *out, candid_error *error);
void file_unmap(struct mapped_file *file);

bool file_is_directory(const char *path);
bool file_exists(const char *path);

/* "directory/name", malloc'd. */
candid_status file_join(const char *directory, const char *name, char **out, candid_error *error);

/* The text as printable UTF-8 for messages: control characters and invalid bytes become '?'; a long path is cut at the
 * left ("…tail") to fit. buffer has at least 16 bytes. Returns buffer. */
const char *file_label(const char *path, char *buffer, size_t size);

#endif
