/* The means of a window, for es_window_walk.h; include it after defining
 *     ES_CODE       type of the elements,
 *     ES_WORD_SUMS  1 where es_sum.h adds up such elements, else 0. */

/* sum / count, rounded half away from zero. */
static ES_CODE es_average(const es_pool_args *args, int32_t sum, int32_t count)
{
    const int32_t half = count / 2;
    return (ES_CODE)es_clamp((sum > 0 ? sum + half : sum - half) / count, args->low, args->high);
}

static ES_NOINLINE void window(const es_pool_args *args, const ES_CODE *in, int32_t rows,
                               int32_t columns, ES_CODE *out)
{
    const int32_t channels = args->channels, count = rows * columns;
    const int32_t line = (args->in_width - columns) * channels;
    int32_t c = 0;
#if ES_DSP && ES_WORD_SUMS
    for (; count <= ES_SUM_LIMIT && c + 4 <= channels; c += 4) {
        es_sums sums = {0, 0};
        const ES_CODE *x = in + c;
        for (int32_t i = rows; i > 0; --i) {
            for (int32_t j = columns; j > 0; --j) {
                sums = es_plus_word(sums, es_load_word(x));
                x += channels;
            }
            x += line;
        }
        int32_t sum[4];
        es_unpack_sums(sums, sum);
        for (int32_t k = 0; k < 4; ++k) {
            out[c + k] = es_average(args, sum[k], count);
        }
    }
#endif
    for (; c < channels; ++c) {
        int32_t sum = 0;
        const ES_CODE *x = in + c;
        for (int32_t i = rows; i > 0; --i) {
            for (int32_t j = columns; j > 0; --j) {
                sum += *x;
                x += channels;
            }
            x += line;
        }
        out[c] = es_average(args, sum, count);
    }
}
