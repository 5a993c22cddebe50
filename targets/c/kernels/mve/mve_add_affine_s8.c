#include "es_mve_core.h"

/* (offset + floor(a slope_a / 2^8) + floor(b slope_b / 2^8)) >> ES_AFFINE_BITS, the codes at the
 * top of words: VMULH. The shift is one of its own: GNU as 2.40 makes VQRSHRN of VQSHRN. */
static inline int32x4_t sum(uint32x4_t a, uint32x4_t b, es_affine_args by)
{
    const uint32x4_t top = vdupq_n_u32(0xFF000000u);
    const int32x4_t x = vreinterpretq_s32_u32(vandq_u32(a, top));
    const int32x4_t y = vreinterpretq_s32_u32(vandq_u32(b, top));
    const int32x4_t terms = vaddq_s32(vmulhq_s32(x, vdupq_n_s32(by.slope_a)),
                                      vmulhq_s32(y, vdupq_n_s32(by.slope_b)));
    return vshrq_n_s32(vaddq_n_s32(terms, by.offset), ES_AFFINE_BITS);
}

/* Bytes 0 and 2 of words, then 1 and 3, are the bottom and top halves of narrower elements. */
static inline int8x16_t sixteen(int8x16_t a, int8x16_t b, es_affine_args by)
{
    const uint32x4_t x = vreinterpretq_u32_s8(a), y = vreinterpretq_u32_s8(b);
    const int32x4_t first = sum(vshlq_n_u32(x, 24), vshlq_n_u32(y, 24), by);
    int16x8_t even = vqmovnbq_s32(vreinterpretq_s16_s32(first), first);
    even = vqmovntq_s32(even, sum(vshlq_n_u32(x, 8), vshlq_n_u32(y, 8), by));
    const int32x4_t second = sum(vshlq_n_u32(x, 16), vshlq_n_u32(y, 16), by);
    int16x8_t odd = vqmovnbq_s32(vreinterpretq_s16_s32(second), second);
    odd = vqmovntq_s32(odd, sum(x, y, by));
    return vqmovntq_s16(vqmovnbq_s16(vreinterpretq_s8_s16(even), even), odd);
}

void es_mve_add_affine_s8(const es_add_affine_s8_args *args, const int8_t *a, const int8_t *b,
                          int8_t *out)
{
    const es_affine_args by = args->by;
    int32_t left = args->count;
    for (; left >= 16; left -= 16) {
        vstrbq_s8(out, sixteen(vldrbq_s8(a), vldrbq_s8(b), by));
        a += 16;
        b += 16;
        out += 16;
    }
    if (left > 0) {
        const mve_pred16_t rest = vctp8q((uint32_t)left);
        vstrbq_p_s8(out, sixteen(vldrbq_z_s8(a, rest), vldrbq_z_s8(b, rest), by), rest);
    }
}
