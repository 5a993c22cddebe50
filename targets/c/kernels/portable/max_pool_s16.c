#include "es_common.h"
#include "es_pool.h"

#define ES_CODE int16_t

#if ES_DSP
/* Times a code: that code in every lane of a word. */
#define LANES 0x00010001u
#endif

static ES_NOINLINE void window(const es_pool_args *args, const int16_t *in, int32_t rows,
                               int32_t columns, int16_t *out)
{
    const int32_t channels = args->channels;
    const int32_t line = (args->in_width - columns) * channels;
    int32_t c = 0;
#if ES_DSP
    const uint32_t low = (uint16_t)args->low * LANES, high = (uint16_t)args->high * LANES;
    for (; c + 2 <= channels; c += 2) {
        uint32_t most = low, unused;
        const int16_t *x = in + c;
        for (int32_t i = rows; i > 0; --i) {
            for (int32_t j = columns; j > 0; --j) {
                __asm__("ssub16 %1, %0, %2\n\tsel %0, %0, %2"
                        : "+r"(most), "=&r"(unused)
                        : "r"(es_load_word(x))
                        : "cc");
                x += channels;
            }
            x += line;
        }
        __asm__("ssub16 %1, %2, %0\n\tsel %0, %0, %2"
                : "+r"(most), "=&r"(unused)
                : "r"(high)
                : "cc");
        es_store_word(out + c, most);
    }
#endif
    for (; c < channels; ++c) {
        int32_t most = args->low;
        const int16_t *x = in + c;
        for (int32_t i = rows; i > 0; --i) {
            for (int32_t j = columns; j > 0; --j) {
                most = es_max(most, *x);
                x += channels;
            }
            x += line;
        }
        out[c] = (int16_t)es_min(most, args->high);
    }
}

#include "es_window_walk.h"

void es_max_pool_s16(const es_pool_args *args, const int16_t *in, int16_t *out)
{
    es_for_windows(args, in, out);
}
