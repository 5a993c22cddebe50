/* Element-wise operators.
 *
 * Outputs are dense. Where operands are broadcast, rows of `count` elements are computed one
 * after the other: within a row an operand moves by `step` 0 or 1; `size` counts the rows along
 * up to four axes, the innermost last, and `jump` leads from a row to the next one of an axis. */
#ifndef ES_ELEMENTWISE_H
#define ES_ELEMENTWISE_H

#include <stdint.h>

#define ES_OUTER_AXES 4

typedef struct {
    int32_t count;
    int32_t step_a, step_b;
    int32_t size[ES_OUTER_AXES];
    int32_t jump_a[ES_OUTER_AXES];
    int32_t jump_b[ES_OUTER_AXES];
} es_broadcast;

/* One operand of a sum: (code - zero) raise, times multiplier * 2^(-31 - right), right >= 1. */
typedef struct {
    int32_t zero, raise, multiplier, right;
} es_addend;

/* out = clamp(requantize(a' + b') + zero); `sign` -1 subtracts b'. `low` and `high` are limits
 * less `zero`. */
typedef struct {
    es_broadcast shape;
    es_addend a, b;
    int32_t sign;
    int32_t multiplier, shift;
    int32_t zero, low, high;
} es_add_args;

void es_add_s8(const es_add_args *args, const int8_t *a, const int8_t *b, int8_t *out);
void es_add_s16(const es_add_args *args, const int16_t *a, const int16_t *b, int16_t *out);

/* sum = offset + floor(a slope_a / 2^8) + floor(b slope_b / 2^8)
 * out = clamp(sum >> ES_AFFINE_BITS)
 *
 * An int8 sum or difference with its three roundings is nearly this. It is used where the
 * compiler found slopes and an offset that give the same byte for all 65,536 pairs of codes. */
#define ES_AFFINE_BITS 21

typedef struct {
    int32_t slope_a, slope_b, offset;
} es_affine_args;

/* Where scales are powers of two, many sums are ties, which fall away from zero: with `away` -1,
 * negative sums are lowered by their last bit before `offset` is added. */
typedef struct {
    int32_t away, offset;
    int32_t low, high;
} es_affine_tail;

/* Both operands have the shape of the output; no tail, and all codes as limits. */
typedef struct {
    int32_t count;
    es_affine_args by;
} es_add_affine_s8_args;

/* Both operands step by 1 within a row. */
typedef struct {
    es_broadcast shape;
    es_affine_args by;
    es_affine_tail tail;
} es_add_affine_rows_s8_args;

void es_add_affine_s8(const es_add_affine_s8_args *args, const int8_t *a, const int8_t *b,
                      int8_t *out);
void es_add_affine_rows_s8(const es_add_affine_rows_s8_args *args, const int8_t *a,
                           const int8_t *b, int8_t *out);

/* out = clamp(requantize((a - zero_a)(b - zero_b)) + zero). */
typedef struct {
    es_broadcast shape;
    int32_t zero_a, zero_b;
    int32_t multiplier, shift;
    int32_t zero, low, high;
} es_mul_args;

void es_mul_s8(const es_mul_args *args, const int8_t *a, const int8_t *b, int8_t *out);
void es_mul_s16(const es_mul_args *args, const int16_t *a, const int16_t *b, int16_t *out);

/* out = clamp(code, low, high). */
typedef struct {
    int32_t count;
    int32_t low, high;
} es_clamp_args;

void es_clamp_s8(const es_clamp_args *args, const int8_t *in, int8_t *out);
void es_clamp_s16(const es_clamp_args *args, const int16_t *in, int16_t *out);

/* out = clamp(requantize(code - in_zero), low, high) + zero: what no table of codes serves. */
typedef struct {
    int32_t count;
    int32_t in_zero;
    int32_t multiplier, shift;
    int32_t zero, low, high;
} es_rescale_args;

void es_rescale_s16(const es_rescale_args *args, const int16_t *in, int16_t *out);
/* Stores low bytes, so the limits say whether they are int8 or uint8. */
void es_rescale_s16_s8(const es_rescale_args *args, const int16_t *in, int8_t *out);

#endif
