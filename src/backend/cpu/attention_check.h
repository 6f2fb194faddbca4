/* What attention calls must satisfy, checked alike by the reference and the fast path. */
#ifndef CANDID_BACKEND_CPU_ATTENTION_CHECK_H
#define CANDID_BACKEND_CPU_ATTENTION_CHECK_H

#include "backend/backend.h"

#define ATTENTION_MAX_HEAD_DIM 65536 /* keeps every size below far from overflow */
#define ATTENTION_MAX_THREADS  4096

candid_status attention_check_kv(const struct kv_attention *a, candid_error *error);
candid_status attention_check_full(int n_rows, int n_head, int head_dim, candid_error *error);

/* n_threads as given, within 1..ATTENTION_MAX_THREADS. */
int attention_threads(int n_threads);

/* a * b * c bytes, 64-byte aligned, released with free(); NULL when memory is short or the product overflows. */
void *attention_alloc(size_t a, size_t b, size_t c);

#endif
