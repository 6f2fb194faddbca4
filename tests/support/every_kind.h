/* A GGUF file with a key of each type and tensors of four types, for the tests of the reader. */
#ifndef CANDID_TESTS_EVERY_KIND_H
#define CANDID_TESTS_EVERY_KIND_H

#include "gguf_writer.h"
#include "model/quant.h"

static const float f32_data[8] = {1, 2, 3, 4, 5, 6, 7, 8};
static uint8_t q8_data[68], q4k_data[144];

static inline void add_one_of_each(struct gguf_writer *w) {
    const int8_t i8 = -8;
    const uint16_t u16 = 65535;
    const int16_t i16 = -300;
    const int64_t i64 = INT64_MIN;
    const double f64 = 0.25;
    gw_raw(w, "t.u8", 0, (const uint8_t[]){200}, 1);
    gw_raw(w, "t.i8", 1, &i8, 1);
    gw_raw(w, "t.u16", 2, &u16, 2);
    gw_raw(w, "t.i16", 3, &i16, 2);
    gw_u32(w, "t.u32", 4000000000u);
    gw_i32(w, "t.i32", -5);
    gw_f32(w, "t.f32", 1e-5f);
    gw_bool(w, "t.bool", true);
    gw_str(w, "t.string", "caf\u00e9");
    gw_u64(w, "t.u64", UINT64_MAX);
    gw_raw(w, "t.i64", 11, &i64, 8);
    gw_raw(w, "t.f64", 12, &f64, 8);
    gw_arr_str(w, "t.strings", (const char *const[]){"", "b", "\u2581the"}, 3);
    gw_arr_f32(w, "t.floats", (const float[]){0.5f, -1.0f}, 2);
    gw_arr_i32(w, "t.ints", (const int32_t[]){7, -7, 0}, 3);
    gw_arr(w, "t.bools", 7, 2);
    gw_put(&w->kv, (const uint8_t[]){0, 1}, 2);
    gw_arr(w, "t.empty", 8, 0);
}

static inline void add_tensors(struct gguf_writer *w) {
    gw_tensor(w, "a", TYPE_F32, 2, (const int64_t[]){4, 2}, f32_data, sizeof f32_data);
    gw_tensor(w, "b", TYPE_Q8_0, 2, (const int64_t[]){32, 2}, q8_data, sizeof q8_data);
    gw_tensor(w, "c", TYPE_Q4_K, 1, (const int64_t[]){256}, q4k_data, sizeof q4k_data);
    gw_tensor(w, "d", TYPE_F16, 4, (const int64_t[]){1, 2, 1, 3}, f32_data, 12);
}

#endif
