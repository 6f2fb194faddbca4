/* Views of a host's tensors: what they may be, and conversion. */
#include "host/view.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "api/params.h"
#include "core/status.h"
#include "model/quant.h"

#define MOST_ELEMENTS ((int64_t)1 << 40) /* far more than any tensor has: sums of offsets cannot overflow */

/* Elements overlap where a stride is shorter than what the dimensions inside it span. */
static bool overlaps(const candid_view *v) {
    for (int i = 0; i < v->n_dims; i++) {
        int64_t inside = 1;
        for (int j = 0; j < v->n_dims; j++) {
            if (j != i && v->shape[j] > 1 &&
                (v->strides[j] < v->strides[i] || (v->strides[j] == v->strides[i] && j > i))) {
                inside += (v->shape[j] - 1) * v->strides[j];
            }
        }
        if (v->shape[i] > 1 && v->strides[i] < inside) {
            return true;
        }
    }
    return false;
}

static candid_status check_shape(const candid_view *v, const char *what, candid_error *error) {
    int64_t last = 0;
    for (int i = 0; i < v->n_dims; i++) {
        if (v->shape[i] < 1 || v->shape[i] > INT32_MAX) {
            return fail(error, CANDID_ERROR_ARGUMENT, "%s: shape[%d]: expected 1 or more elements, found %" PRId64,
                        what, i, v->shape[i]);
        }
        if (v->strides[i] < 0 || v->strides[i] > MOST_ELEMENTS / v->shape[i]) {
            return fail(error, CANDID_ERROR_ARGUMENT,
                        "%s: strides[%d]: expected 0 to %" PRId64 " elements, found %" PRId64, what, i,
                        MOST_ELEMENTS / v->shape[i], v->strides[i]);
        }
        last += (v->shape[i] - 1) * v->strides[i];
    }
    if (last > MOST_ELEMENTS || overlaps(v)) {
        return fail(error, CANDID_ERROR_ARGUMENT, "%s: the strides make elements overlap", what);
    }
    return CANDID_OK;
}

candid_status view_read(const candid_view *given, int n_dims, const char *what, candid_view *out, candid_error *error) {
    if (!given) {
        return fail(error, CANDID_ERROR_ARGUMENT, "%s: expected a view, found NULL", what);
    }
    *out = (candid_view){0};
    TRY(params_read(out, sizeof *out, given, what, error));
    if (out->dtype != CANDID_F32 && out->dtype != CANDID_F16 && out->dtype != CANDID_BF16) {
        return fail(error, CANDID_ERROR_ARGUMENT, "%s: dtype: expected 0 (f32), 1 (f16) or 2 (bf16), found %d", what,
                    (int)out->dtype);
    }
    if (out->space == CANDID_SPACE_CUDA) {
        return fail(error, CANDID_ERROR_UNSUPPORTED,
                    "%s lies in CUDA memory, which this build of candid cannot edit: copy it to host memory", what);
    }
    if (out->space != CANDID_SPACE_HOST) {
        return fail(error, CANDID_ERROR_ARGUMENT, "%s: space: expected 0 (host) or 1 (CUDA), found %d", what,
                    (int)out->space);
    }
    if (out->n_dims != n_dims) {
        return fail(error, CANDID_ERROR_ARGUMENT, "%s: expected %d dimensions, found %d", what, n_dims, out->n_dims);
    }
    if (!out->data || (uintptr_t)out->data % (out->dtype == CANDID_F32 ? sizeof(float) : sizeof(uint16_t)) != 0) {
        return fail(error, CANDID_ERROR_ARGUMENT, "%s: expected the address of its elements, found %s", what,
                    out->data ? "one that is not aligned to them" : "NULL");
    }
    return check_shape(out, what, error);
}

void view_get(const candid_view *v, int64_t offset, int64_t stride, int n, float *out) {
    if (v->dtype == CANDID_F32) {
        const float *from = (const float *)v->data + offset;
        if (stride == 1) {
            memcpy(out, from, (size_t)n * sizeof *out);
            return;
        }
        for (int i = 0; i < n; i++) {
            out[i] = from[i * stride];
        }
        return;
    }
    const uint16_t *from = (const uint16_t *)v->data + offset;
    for (int i = 0; i < n; i++) {
        out[i] = v->dtype == CANDID_F16 ? f16_to_f32(from[i * stride]) : bf16_to_f32(from[i * stride]);
    }
}

void view_put(const candid_view *v, int64_t offset, int64_t stride, int n, const float *values) {
    if (v->dtype == CANDID_F32) {
        float *to = (float *)v->data + offset;
        for (int i = 0; i < n; i++) {
            to[i * stride] = values[i];
        }
        return;
    }
    uint16_t *to = (uint16_t *)v->data + offset;
    for (int i = 0; i < n; i++) {
        to[i * stride] = v->dtype == CANDID_F16 ? f32_to_f16(values[i]) : f32_to_bf16(values[i]);
    }
}

float *view_direct(const candid_view *v, int64_t offset, int64_t stride) {
    return v->dtype == CANDID_F32 && stride == 1 ? (float *)v->data + offset : NULL;
}

bool any_nan(const float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (isnan(x[i])) {
            return true;
        }
    }
    return false;
}
