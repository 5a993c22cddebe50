/* Bytes from here to there, and clamps of finished codes. */
#include "es_common.h"
#include "es_dsp_core.h"

void es_dsp_copy(void *to, const void *from, int32_t bytes)
{
    char *target = to;
    const char *source = from;

    for (; bytes >= 4; bytes -= 4, target += 4, source += 4) {
        es_store_word(target, es_load_word(source));
    }
    for (; bytes > 0; bytes--) {
        *target++ = *source++;
    }
}

void es_dsp_clamp(int8_t *codes, int32_t count, const es_dsp_outputs *outputs)
{
    if (outputs->low == -128 && outputs->high == 127) {
        return;
    }
    for (int32_t i = 0; i < count; i++) {
        codes[i] = (int8_t)es_clamp(codes[i], outputs->low, outputs->high);
    }
}
