/* Logits to log-probabilities. */
#ifndef CANDID_DECODE_LOG_SOFTMAX_H
#define CANDID_DECODE_LOG_SOFTMAX_H

/* In place; the sum in f64. Where all are -infinity nothing changes. */
void log_softmax(float *x, int n);

#endif
