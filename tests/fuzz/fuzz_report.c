/*
 * libFuzzer target: runs of reports. Lines "@@" divide the input into summary, answers (file "a") and verdicts (file
 * "v"). What is read is reported in all forms, and what is written must hold no tag of the input.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "eval/report/report.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition) {
    if (!condition) {
        abort();
    }
}

static void write_part(const char *path, const uint8_t *data, size_t size) {
    FILE *f = fopen(path, "wb");
    require(f && fwrite(data, 1, size, f) == size && fclose(f) == 0);
}

/* Up to the next line "@@"; *data and *size move behind it. */
static size_t next_part(const uint8_t **data, size_t *size, const uint8_t **part) {
    *part = *data;
    const uint8_t *stop = *size >= 4 ? memmem(*data, *size, "\n@@\n", 4) : NULL;
    if (*size >= 3 && memcmp(*data, "@@\n", 3) == 0) { /* nothing before it */
        *data += 3;
        *size -= 3;
        return 0;
    }
    const size_t n = stop ? (size_t)(stop - *data) + 1 : *size, used = stop ? n + 3 : n;
    *data += used;
    *size -= used;
    return n;
}

static void write_all(const struct report *report) {
    static candid_status (*const writers[])(const struct report *, FILE *, candid_error *) = {
        report_write_html, report_write_markdown, report_write_csv};
    for (size_t i = 0; i < sizeof writers / sizeof *writers; i++) {
        char *text = NULL;
        size_t size = 0;
        FILE *f = open_memstream(&text, &size);
        require(f && writers[i](report, f, NULL) == CANDID_OK && fclose(f) == 0);
        if (i == 0) {
            const char *data = strstr(text, "id=\"data\">"), *end = data ? strstr(data, "</script>") : NULL;
            require(end);
            data += strlen("id=\"data\">");
            cJSON *json = cJSON_ParseWithLength(data, (size_t)(end - data));
            require(json);
            cJSON_Delete(json);
        }
        free(text);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const names[] = {"run.json", "a", "v"};
    char folder[] = "/tmp/fuzz_report_XXXXXX", path[3][64];
    require(mkdtemp(folder));
    for (int i = 0; i < 3; i++) {
        const uint8_t *part;
        const size_t n = next_part(&data, &size, &part);
        snprintf(path[i], sizeof path[i], "%s/%s", folder, names[i]);
        write_part(path[i], part, n);
    }
    struct report_run run[2], *runs[2] = {&run[0], &run[1]};
    struct report report;
    struct report_options o = REPORT_DEFAULTS;
    o.resamples = 3;
    o.no_images = true;
    candid_error error;
    if (report_run_read(path[0], &run[0], &error) == CANDID_OK) {
        require(report_run_read(path[0], &run[1], &error) == CANDID_OK);
        o.baseline = run[0].name;
        run[1].name = "other";
        if (report_build(runs, 2, &o, &report, &error) == CANDID_OK) {
            write_all(&report);
            report_free(&report);
        }
        report_run_free(&run[0]);
        report_run_free(&run[1]);
    }
    for (int i = 0; i < 3; i++) {
        unlink(path[i]);
    }
    rmdir(folder);
    return 0;
}
