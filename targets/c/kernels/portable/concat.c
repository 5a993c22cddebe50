#include "es_common.h"
#include "es_movement.h"

void es_concat(const es_concat_args *args, const void *in0, const void *in1, const void *in2,
               const void *in3, const void *in4, const void *in5, const void *in6,
               const void *in7, void *out)
{
    const uint8_t *in[ES_CONCAT_SLOTS] = {in0, in1, in2, in3, in4, in5, in6, in7};
    uint8_t *to = out;
    for (int32_t row = args->rows; row > 0; --row) {
        for (int32_t i = 0; i < args->operands; ++i) {
            const size_t run = (size_t)args->run[i];
            memcpy(to, in[i], run);
            to += run;
            in[i] += run;
        }
    }
}
