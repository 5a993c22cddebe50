#include "es_common.h"
#include "es_movement.h"

void es_copy_runs(const es_runs *args, const void *in, void *out)
{
    const es_runs runs = *args;
    for (int32_t i = 0; i < runs.size[0]; ++i) {
        for (int32_t j = 0; j < runs.size[1]; ++j) {
            for (int32_t k = 0; k < runs.size[2]; ++k) {
                const uint8_t *from = (const uint8_t *)in + runs.offset + i * runs.in_step[0] +
                                      j * runs.in_step[1] + k * runs.in_step[2];
                uint8_t *to = (uint8_t *)out + i * runs.out_step[0] + j * runs.out_step[1] +
                              k * runs.out_step[2];
                for (int32_t l = runs.size[3]; l > 0; --l) {
                    memcpy(to, from, (size_t)runs.run);
                    from += runs.in_step[3];
                    to += runs.out_step[3];
                }
            }
        }
    }
}
