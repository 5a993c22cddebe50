/* The largest codes of a window, for es_window_walk.h; include it after defining
 *     ES_CODE      type of the elements,
 *     ES_LANES     a code times this is that code in every lane of a word,
 *     ES_SUBTRACT  instruction that subtracts lanes and sets their flags for SEL. */
static ES_NOINLINE void window(const es_pool_args *args, const ES_CODE *in, int32_t rows,
                               int32_t columns, ES_CODE *out)
{
    const int32_t channels = args->channels;
    const int32_t line = (args->in_width - columns) * channels;
    int32_t c = 0;
#if ES_DSP
    const int32_t lanes = 4 / (int32_t)sizeof(ES_CODE);
    const uint32_t mask = UINT32_MAX / ES_LANES;
    const uint32_t low = ((uint32_t)args->low & mask) * ES_LANES;
    const uint32_t high = ((uint32_t)args->high & mask) * ES_LANES;
    for (; c + lanes <= channels; c += lanes) {
        uint32_t most = low, unused;
        const ES_CODE *x = in + c;
        for (int32_t i = rows; i > 0; --i) {
            for (int32_t j = columns; j > 0; --j) {
                __asm__(ES_SUBTRACT " %1, %0, %2\n\tsel %0, %0, %2"
                        : "+r"(most), "=&r"(unused)
                        : "r"(es_load_word(x))
                        : "cc");
                x += channels;
            }
            x += line;
        }
        __asm__(ES_SUBTRACT " %1, %2, %0\n\tsel %0, %0, %2"
                : "+r"(most), "=&r"(unused)
                : "r"(high)
                : "cc");
        es_store_word(out + c, most);
    }
#endif
    for (; c < channels; ++c) {
        int32_t most = args->low;
        const ES_CODE *x = in + c;
        for (int32_t i = rows; i > 0; --i) {
            for (int32_t j = columns; j > 0; --j) {
                most = es_max(most, *x);
                x += channels;
            }
            x += line;
        }
        out[c] = (ES_CODE)es_min(most, args->high);
    }
}
