/* Rows of affine sums of int8 codes; see es_elementwise.h. */
#ifndef ES_AFFINE_H
#define ES_AFFINE_H

#include "es_common.h"
#include "es_elementwise.h"

/* What follows the sum, with a tail. */
static inline int32_t es_with_tail(int32_t sum, es_affine_tail tail)
{
    return sum + ((sum >> 31) & tail.away) + tail.offset;
}

#if ES_DSP
/* sum + floor(code slope / 2^8), the code in the top byte of `top`. */
static inline int32_t es_plus_term(int32_t sum, uint32_t top, int32_t slope)
{
    int32_t result;
    __asm__("smmla %0, %1, %2, %3" : "=r"(result) : "r"(top), "r"(slope), "r"(sum));
    return result;
}

/* One code from two that lie in top bytes. */
static inline uint32_t es_affine(es_affine_args by, es_affine_tail tail, int32_t tailed,
                                 uint32_t a, uint32_t b)
{
    int32_t sum = es_plus_term(es_plus_term(by.offset, a, by.slope_a), b, by.slope_b);
    if (tailed) {
        sum = es_with_tail(sum, tail);
    }
    __asm__("ssat %0, #8, %0, asr %1" : "+r"(sum) : "I"(ES_AFFINE_BITS) : "cc");
    return (uint32_t)sum;
}
#endif

/* `tailed` is a constant: 0 leaves the tail out. */
static inline void es_affine_row(es_affine_args by, es_affine_tail tail, int32_t tailed,
                                 int32_t count, const int8_t *a, const int8_t *b, int8_t *out)
{
    const int8_t *const end = a + count;
#if ES_DSP
    const es_lanes limits = es_lanes_of(tail.low, tail.high);
    const int8_t *const last_word = a + (count & ~3);
    uint32_t top = 0xFF000000u;
    __asm__("" : "+r"(top)); /* in a register, so that masking takes a shifted operand */
    while (a != last_word) {
        const uint32_t x = es_load_word(a), y = es_load_word(b);
        const uint32_t codes = es_pack_bytes(
            es_affine(by, tail, tailed, x << 24, y << 24),
            es_affine(by, tail, tailed, x << 16 & top, y << 16 & top),
            es_affine(by, tail, tailed, x << 8 & top, y << 8 & top),
            es_affine(by, tail, tailed, x & top, y & top));
        es_store_word(out, tailed ? es_clamp_lanes(codes, limits) : codes);
        a += 4;
        b += 4;
        out += 4;
    }
    while (a != end) {
        const uint32_t x = (uint32_t)*a++ << 24, y = (uint32_t)*b++ << 24;
        const int32_t code = (int8_t)es_affine(by, tail, tailed, x, y);
        *out++ = (int8_t)es_clamp(code, tail.low, tail.high);
    }
#else
    /* floor(code slope / 2^8) in 32-bit products. */
    const int32_t high_a = by.slope_a >> 8, low_a = by.slope_a & 0xFF;
    const int32_t high_b = by.slope_b >> 8, low_b = by.slope_b & 0xFF;
    while (a != end) {
        const int32_t x = *a++, y = *b++;
        int32_t sum = by.offset + x * high_a + ((x * low_a) >> 8);
        sum += y * high_b + ((y * low_b) >> 8);
        if (tailed) {
            sum = es_with_tail(sum, tail);
        }
        *out++ = (int8_t)es_clamp(sum >> ES_AFFINE_BITS, tail.low, tail.high);
    }
#endif
}

#endif
