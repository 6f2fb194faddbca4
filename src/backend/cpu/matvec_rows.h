/*
 * The end of every vector family: instances of its row templates and the loop over weight rows. Included behind the
 * templates blocks_row, super_min_row, q6_k_row and float_row, and NX_MAX = 6, the activation rows they take at most.
 */

/* ---- instances: name_1 .. name_6 for 1 .. 6 activation rows ---- */

typedef void row_fn(const uint8_t *w, int n_in, const char *prepared, size_t stride, float *out, size_t out_stride);

#define INSTANCE(name, nx, template, ...)                                                                              \
    static void name##_##nx(const uint8_t *w, int n_in, const char *prepared, size_t stride, float *out,               \
                            size_t out_stride) {                                                                       \
        template(__VA_ARGS__ w, n_in, prepared, stride, nx, out, out_stride);                                          \
    }
#define INSTANCES(name, ...)                                                                                           \
    INSTANCE(name, 1, __VA_ARGS__)                                                                                     \
    INSTANCE(name, 2, __VA_ARGS__)                                                                                     \
    INSTANCE(name, 3, __VA_ARGS__)                                                                                     \
    INSTANCE(name, 4, __VA_ARGS__)                                                                                     \
    INSTANCE(name, 5, __VA_ARGS__)                                                                                     \
    INSTANCE(name, 6, __VA_ARGS__)                                                                                     \
    static row_fn *const name[NX_MAX] = {name##_1, name##_2, name##_3, name##_4, name##_5, name##_6};
#define COMMA ,

INSTANCES(q8_0, blocks_row, false COMMA)
INSTANCES(q4_0, blocks_row, true COMMA)
INSTANCES(q4_k, super_min_row, false COMMA)
INSTANCES(q5_k, super_min_row, true COMMA)
INSTANCES(q6_k, q6_k_row, )
INSTANCES(f32, float_row, TYPE_F32 COMMA)
INSTANCES(f16, float_row, TYPE_F16 COMMA)
INSTANCES(bf16, float_row, TYPE_BF16 COMMA)

static void multiply(uint32_t type, const void *w, int n_in, int row_begin, int row_end, const void *prepared, int n_x,
                     float *out, int out_stride) {
    row_fn *const *row;
    switch (type) {
    case TYPE_Q8_0: row = q8_0; break;
    case TYPE_Q4_0: row = q4_0; break;
    case TYPE_Q4_K: row = q4_k; break;
    case TYPE_Q5_K: row = q5_k; break;
    case TYPE_Q6_K: row = q6_k; break;
    case TYPE_F16: row = f16; break;
    case TYPE_BF16: row = bf16; break;
    default: row = f32; break;
    }
    const size_t row_bytes = quant_row_bytes(type, n_in), stride = matvec_prepared_bytes(type, n_in);
    const uint8_t *p = (const uint8_t *)w + (size_t)row_begin * row_bytes;
    for (int i = 0; i < row_end - row_begin; i++, p += row_bytes) {
        for (int r = 0; r < n_x; r += NX_MAX) {
            int nx = n_x - r < NX_MAX ? n_x - r : NX_MAX;
            row[nx - 1](p, n_in, (const char *)prepared + (size_t)r * stride, stride,
                        out + (size_t)r * (size_t)out_stride + i, (size_t)out_stride);
        }
    }
}
