/* Rows of affine sums of int8 codes; see es_elementwise.h. */
#ifndef ES_AFFINE_H
#define ES_AFFINE_H

#include "es_common.h"
#include "es_elementwise.h"

#if ES_DSP
/* sum + floor(code slope / 2^8), the code in the top byte of `top`. */
static inline int32_t es_plus_term(int32_t sum, uint32_t top, int32_t slope)
{
    int32_t result;
    __asm__("smmla %0, %1, %2, %3" : "=r"(result) : "r"(top), "r"(slope), "r"(sum));
    return result;
}

/* One code from two that lie in top bytes; `away` lowers negative sums by their last bit. */
static inline uint32_t es_affine(es_affine_args by, uint32_t a, uint32_t b, int32_t away)
{
    int32_t sum = es_plus_term(es_plus_term(by.offset, a, by.slope_a), b, by.slope_b);
    if (away) {
        sum += (sum >> 31) + by.output_offset;
    }
    __asm__("ssat %0, #8, %0, asr %1" : "+r"(sum) : "I"(ES_AFFINE_BITS) : "cc");
    return (uint32_t)sum;
}

/* The low bytes of four words, in three instructions. */
static inline uint32_t es_packed(uint32_t first, uint32_t second, uint32_t third, uint32_t fourth)
{
    __asm__("bfi %0, %1, #8, #24" : "+r"(first) : "r"(second));
    __asm__("bfi %0, %1, #16, #16" : "+r"(first) : "r"(third));
    __asm__("bfi %0, %1, #24, #8" : "+r"(first) : "r"(fourth));
    return first;
}
#endif

static inline void es_affine_row(es_affine_args by, const int8_t *a, const int8_t *b, int8_t *out,
                                 int32_t count, int32_t away)
{
    const int8_t *const end = a + count;
#if ES_DSP
    const int8_t *const last_word = a + (count & ~3);
    uint32_t top = 0xFF000000u;
    __asm__("" : "+r"(top)); /* in a register, so that masking takes a shifted operand */
    while (a != last_word) {
        const uint32_t x = es_load_word(a), y = es_load_word(b);
        es_store_word(out, es_packed(es_affine(by, x << 24, y << 24, away),
                                     es_affine(by, x << 16 & top, y << 16 & top, away),
                                     es_affine(by, x << 8 & top, y << 8 & top, away),
                                     es_affine(by, x & top, y & top, away)));
        a += 4;
        b += 4;
        out += 4;
    }
    while (a != end) {
        const uint32_t x = (uint32_t)*a++ << 24, y = (uint32_t)*b++ << 24;
        *out++ = (int8_t)es_affine(by, x, y, away);
    }
#else
    /* floor(code slope / 2^8) in 32-bit products. */
    const int32_t high_a = by.slope_a >> 8, low_a = by.slope_a & 0xFF;
    const int32_t high_b = by.slope_b >> 8, low_b = by.slope_b & 0xFF;
    while (a != end) {
        const int32_t x = *a++, y = *b++;
        int32_t sum = by.offset + x * high_a + ((x * low_a) >> 8);
        sum += y * high_b + ((y * low_b) >> 8);
        if (away) {
            sum += (sum >> 31) + by.output_offset;
        }
        *out++ = (int8_t)es_saturate_s8(sum >> ES_AFFINE_BITS);
    }
#endif
}

#endif
