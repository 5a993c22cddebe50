#include "es_common.h"
#include "es_table.h"

void es_curve_s16(const es_curve_s16_args *args, const int16_t *in, int16_t *out)
{
    const es_curve_s16_args by = *args;
    for (int32_t i = 0; i < by.count; ++i) {
        const int32_t code = in[i];
        const uint32_t size = (uint32_t)(code < 0 ? -code : code);
        const uint32_t half = code < 0 ? by.half_negative : by.half;
        const uint32_t steps = (size * by.factor + half) >> by.shift;
        const uint32_t index = steps >> by.bits;
        int32_t value = by.ceiling;
        if (index < 255) {
            const int32_t fraction = (int32_t)(steps & ((1u << by.bits) - 1u));
            const int32_t low = by.table[index], high = by.table[index + 1];
            value = low * (1 << by.bits) + fraction * (high - low);
        }
        out[i] = (int16_t)((code < 0 ? by.mirror - value : value + by.up) >> by.down);
    }
}
