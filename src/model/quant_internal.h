/* Encoders of the K types, in a file of their own. */
#ifndef CANDID_MODEL_QUANT_INTERNAL_H
#define CANDID_MODEL_QUANT_INTERNAL_H

#include "model/quant.h"

/* Rounds QKK values to one super-block. */
void quant_encode_q4_k(const float *x, struct block_q4_k *block);
void quant_encode_q5_k(const float *x, struct block_q5_k *block);
void quant_encode_q6_k(const float *x, struct block_q6_k *block);

#endif
