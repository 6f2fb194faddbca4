/* Read-only mappings of whole files. */
#include "core/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/status.h"
#include "core/text.h"

static candid_status map_open_file(int fd, const char *label, const char *kind, struct mapped_file *out,
                                   candid_error *error) {
    struct stat st;
    if (fstat(fd, &st) != 0) {
        return fail(error, CANDID_ERROR_IO, "%s: cannot be examined: %s", label, strerror(errno));
    }
    if (!S_ISREG(st.st_mode)) {
        return fail(error, CANDID_ERROR_IO, "%s: expected %s, found %s", label, kind,
                    S_ISDIR(st.st_mode) ? "a directory" : "something that is not a regular file");
    }
    if ((uint64_t)st.st_size > SIZE_MAX / 2) {
        return fail(error, CANDID_ERROR_MEMORY, "%s: too large to map: %" PRId64 " bytes", label, (int64_t)st.st_size);
    }
    *out = (struct mapped_file){.size = (size_t)st.st_size};
    if (out->size == 0) {
        return CANDID_OK;
    }
    void *data = mmap(NULL, out->size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) {
        out->size = 0;
        return fail(error, CANDID_ERROR_IO, "%s: cannot be mapped: %s", label, strerror(errno));
    }
    out->data = data;
    return CANDID_OK;
}

candid_status file_map(const char *path, const char *kind, struct mapped_file *out, candid_error *error) {
    *out = (struct mapped_file){0};
    char label[208];
    file_label(path, label, sizeof label);
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* NONBLOCK: a FIFO must not make us wait */
    if (fd < 0) {
        return fail(error, CANDID_ERROR_IO, "%s: cannot be opened: %s", label, strerror(errno));
    }
    const candid_status status = map_open_file(fd, label, kind, out, error);
    close(fd); /* the mapping stays */
    return status;
}

void file_unmap(struct mapped_file *file) {
    if (file->data) {
        munmap((void *)(uintptr_t)file->data, file->size);
    }
    *file = (struct mapped_file){0};
}

bool file_is_directory(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool file_exists(const char *path) {
    return access(path, F_OK) == 0;
}

candid_status file_join(const char *directory, const char *name, char **out, candid_error *error) {
    const size_t n = strlen(directory), m = strlen(name);
    const size_t slash = n > 0 && directory[n - 1] != '/';
    char *path = malloc(n + slash + m + 1);
    if (!path) {
        return fail_memory(error, "a path", n + m + 2);
    }
    memcpy(path, directory, n);
    memcpy(path + n, "/", slash);
    memcpy(path + n + slash, name, m + 1);
    *out = path;
    return CANDID_OK;
}

const char *file_label(const char *path, char *buffer, size_t capacity) {
    const size_t size = strlen(path), limit = capacity - 8;
    if (size <= limit) {
        text_print(buffer, capacity, path, size);
        return buffer;
    }
    const char *tail = path + size - limit; /* the end of a long path says more than its beginning */
    while ((*tail & 0xC0) == 0x80) {        /* not in the middle of a character */
        tail++;
    }
    memcpy(buffer, "…", strlen("…"));
    text_print(buffer + strlen("…"), capacity - strlen("…"), tail, strlen(tail));
    return buffer;
}
