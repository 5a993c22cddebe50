/* Functions of one code through tables that the compiler filled. */
#ifndef ES_TABLE_H
#define ES_TABLE_H

#include <stdint.h>

/* out = table[the byte's unsigned value]: for operands and results of 8 bits, any sign. */
typedef struct {
    int32_t count;
    const int8_t *table;
} es_lookup_s8_args;

void es_lookup_s8(const es_lookup_s8_args *args, const int8_t *in, int8_t *out);

/* The same with results of 16 bits. The output may start `count` - 1 bytes or more before the
 * input. */
typedef struct {
    int32_t count;
    const int16_t *table;
} es_lookup_s8_s16_args;

void es_lookup_s8_s16(const es_lookup_s8_s16_args *args, const int8_t *in, int16_t *out);

/* Sigmoid or tanh of 16-bit codes by the sigmoid of [0, 255 / 24], 2^bits steps per entry.
 *
 * steps = (|code| factor + half) >> shift, `half_negative` for negative codes; `ceiling` where
 * steps pass the table; then (value + up) >> down, or (mirror - value) >> down. */
typedef struct {
    int32_t count;
    const uint16_t *table; /* [256] */
    uint32_t factor, half, half_negative;
    int32_t shift, bits;
    int32_t ceiling, up, mirror, down;
} es_curve_s16_args;

void es_curve_s16(const es_curve_s16_args *args, const int16_t *in, int16_t *out);

/* Any function of 16-bit codes: one entry per 128 codes, interpolated. */
typedef struct {
    int32_t count;
    const int16_t *table; /* [513] */
} es_interpolate_s16_args;

void es_interpolate_s16(const es_interpolate_s16_args *args, const int16_t *in, int16_t *out);

/* Such a table at `code` in [-32768, 32767]. */
static inline int32_t es_interpolated(const int16_t *table, int32_t code)
{
    const int16_t *entry = table + 256 + (code >> 7);
    const int32_t slope = entry[1] - entry[0];
    return entry[0] + ((slope * (code & 0x7F) + 64) >> 7);
}

#endif
