/* Batched matrix products. */
#ifndef ES_MATMUL_H
#define ES_MATMUL_H

#include <stdint.h>

#define ES_BATCH_AXES 3

/* out[r][c] = requantize(sum over k of x[r][k] y[k][c], offset-free). Steps are in elements: of
 * both operands along the batch axes (0 where broadcast), and for one more r, k or c. The output
 * is dense.
 *
 * Offset-free 16-bit copies of two rows of x and of `block` columns of y lie in scratch, two
 * codes to a word, padded with 0 to `words`, an even number: 4 (block + 2) words bytes. */
typedef struct {
    int32_t batch[ES_BATCH_AXES], x_batch[ES_BATCH_AXES], y_batch[ES_BATCH_AXES];
    int32_t rows, depth, columns, block, words;
    int32_t x_row, x_depth, y_column, y_depth;
    int32_t x_zero, y_zero;
    int32_t multiplier, shift;
    int32_t zero; /* of int8 codes; int16 ones have none */
} es_matmul_args;

void es_matmul_s8(const es_matmul_args *args, const int8_t *x, const int8_t *y, int8_t *out,
                  uint32_t *scratch);
void es_matmul_s16(const es_matmul_args *args, const int16_t *x, const int16_t *y, int16_t *out,
                   uint32_t *scratch);

#endif
