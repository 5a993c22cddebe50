#include "es_common.h"
#include "es_movement.h"

void es_pad(const es_pad_args *args, const void *in, void *out)
{
    if (args->element_bytes == 1) {
        memset(out, args->value, (size_t)args->bytes);
    } else {
        int16_t *to = out;
        for (int32_t i = args->bytes / 2; i > 0; --i) {
            *to++ = (int16_t)args->value;
        }
    }
    es_copy_runs(&args->runs, in, (uint8_t *)out + args->offset);
}
