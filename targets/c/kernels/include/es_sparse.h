/* A matrix product that skips weights which are zero: they are not stored either. */
#ifndef ES_SPARSE_H
#define ES_SPARSE_H

#include "es_matrix.h"

/* Rows of weights as `es_expand.h` stores units of 8 bits, each row in `words` words of presence;
 * behind those of all `outputs` rows stand the weights that are not zero. */
typedef struct {
    es_tail tail;
    const uint32_t *stored;
    const int32_t *bias; /* with the zero point of the input folded */
    int32_t outputs, words;
} es_sparse_s8_args;

void es_sparse_fully_connected_s8(const es_sparse_s8_args *args, const int8_t *in, int8_t *out);

#endif
