/* Images of the page. */
#include <stdlib.h>
#include <string.h>

#include "core/base64.h"
#include "core/file.h"
#include "core/status.h"
#include "eval/report/page.h"
#include "vision/image.h"
#include "vision/png_write.h"

#define MOST_BYTES   ((size_t)64 << 10) /* of a file that is embedded as it is */
#define LONGER_SIDE  480                /* pixels of a scaled image */
#define JPEG_QUALITY 82

const char *page_images_folder(const struct report *report, const struct report_group *g) {
    return report->options.images ? report->options.images : report_summary_string(g->runs[0], "data.images");
}

/* What browsers show, by its first bytes; NULL: nothing they do. */
static const char *media_type(const struct mapped_file *file) {
    static const struct {
        const char *begin, *type;
    } types[] = {{"\x89PNG\r\n\x1a\n", "image/png"}, {"\xFF\xD8\xFF", "image/jpeg"}, {"GIF8", "image/gif"}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (file->size > 16 && memcmp(file->data, types[i].begin, strlen(types[i].begin)) == 0) {
            return types[i].type;
        }
    }
    return NULL;
}

/* A name from a run must not lead out of the folder. */
static bool is_inside(const char *name) {
    for (const char *part = name; *part;) {
        const size_t n = strcspn(part, "/");
        if (n == 2 && memcmp(part, "..", 2) == 0) {
            return false;
        }
        part += n + (part[n] == '/');
    }
    return name[0] != '/' && name[0] != '\0';
}

static candid_status write_scaled(FILE *f, const struct candid_image *image, candid_error *error) {
    const int longer = image->width > image->height ? image->width : image->height;
    struct candid_image *small = NULL;
    if (longer > LONGER_SIDE) {
        const int w = (int)((int64_t)image->width * LONGER_SIDE / longer);
        const int h = (int)((int64_t)image->height * LONGER_SIDE / longer);
        TRY(image_resize_bicubic(image, w > 0 ? w : 1, h > 0 ? h : 1, &small, error));
        image = small;
    }
    uint8_t *jpeg = NULL;
    size_t size = 0;
    const candid_status status =
        jpeg_encode(image->rgb, image->width, image->height, JPEG_QUALITY, &jpeg, &size, error);
    if (status == CANDID_OK) {
        fputs("data:image/jpeg;base64,", f);
        base64_write(f, jpeg, size);
    }
    free(jpeg);
    candid_image_free(small);
    return status;
}

candid_status page_image(FILE *f, const char *folder, const char *name, bool *written, candid_error *error) {
    *written = false;
    char *path = NULL;
    struct mapped_file file;
    candid_image *image = NULL;
    if (!folder || !is_inside(name)) {
        return CANDID_OK;
    }
    TRY(file_join(folder, name, &path, error));
    if (file_map(path, "an image", &file, NULL) != CANDID_OK) {
        free(path);
        return CANDID_OK;
    }
    candid_status status = CANDID_OK;
    if (candid_image_load_memory(file.data, file.size, name, &image, NULL) == CANDID_OK) {
        const char *type = media_type(&file);
        if (type && file.size <= MOST_BYTES) {
            fprintf(f, "data:%s;base64,", type);
            base64_write(f, file.data, file.size);
        } else {
            status = write_scaled(f, image, error);
        }
        *written = status == CANDID_OK;
        candid_image_free(image);
    }
    file_unmap(&file);
    free(path);
    return status;
}
