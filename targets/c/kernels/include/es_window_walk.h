/* The walk over the windows of a pool; include it after defining, for elements of ES_CODE,
 *     static void window(const es_pool_args *, const ES_CODE *in, int32_t rows,
 *                        int32_t columns, ES_CODE *out);
 * which computes all channels of one position from `rows` x `columns` positions at `in`. */

/* The part of a window at `start` that lies inside [0, size): its first element and length. */
static inline int32_t es_cut(int32_t *start, int32_t length, int32_t size)
{
    const int32_t end = es_min(*start + length, size);
    *start = es_max(*start, 0);
    return end - *start;
}

static inline void es_for_windows(const es_pool_args *args, const ES_CODE *in, ES_CODE *out)
{
    for (int32_t n = 0; n < args->batch; ++n) {
        for (int32_t i = 0; i < args->out_height; ++i) {
            int32_t y = i * args->stride_height - args->pad_top;
            const int32_t rows = es_cut(&y, args->kernel_height, args->in_height);
            for (int32_t j = 0; j < args->out_width; ++j) {
                int32_t x = j * args->stride_width - args->pad_left;
                const int32_t columns = es_cut(&x, args->kernel_width, args->in_width);
                window(args, in + (y * args->in_width + x) * args->channels, rows, columns, out);
                out += args->channels;
            }
        }
        in += args->in_height * args->in_width * args->channels;
    }
}
