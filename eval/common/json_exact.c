#include "eval/common/json_exact.h"

#include <limits.h>
#include <math.h>
#include <string.h>

#include "eval/common/python_float.h"

/* Turns the numbers that cJSON would round into text of their own. */
static bool fix_numbers(cJSON *item) {
    for (; item; item = item->next) {
        if (!fix_numbers(item->child)) {
            return false;
        }
        const double value = item->valuedouble;
        if (!cJSON_IsNumber(item) || !isfinite(value) || (fabs(value) < INT_MAX && value == (int)value)) {
            continue;
        }
        char text[PYTHON_FLOAT];
        const size_t size = strlen(python_float(value, text)) + 1;
        item->valuestring = cJSON_malloc(size);
        if (!item->valuestring) {
            return false;
        }
        memcpy(item->valuestring, text, size);
        item->type = cJSON_Raw;
    }
    return true;
}

char *json_print_exact(const cJSON *item, bool formatted) {
    cJSON *copy = cJSON_Duplicate(item, true);
    char *text = copy && fix_numbers(copy) ? (formatted ? cJSON_Print(copy) : cJSON_PrintUnformatted(copy)) : NULL;
    cJSON_Delete(copy);
    return text;
}
