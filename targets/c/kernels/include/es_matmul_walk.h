/* The walk over a batched product; include it after defining, for elements of ES_CODE,
 *     static void tile(const es_matmul_args *, const uint32_t *x, const uint32_t *y,
 *                      ES_CODE *out, int32_t rows, int32_t columns);
 * which computes `rows` x `columns` outputs, each 1 or 2, from packed rows and columns. */

/* Offset-free codes, two to a word. */
static ES_NOINLINE void es_pack(const es_matmul_args *args, const ES_CODE *in, int32_t step,
                                int32_t zero, uint32_t *out)
{
    const uint32_t *const end = out + args->words;
    for (int32_t pairs = args->depth / 2; pairs > 0; --pairs) {
        const int32_t first = *in - zero, second = in[step] - zero;
        in += 2 * step;
        *out++ = (uint16_t)first | (uint32_t)second << 16;
    }
    if (args->depth & 1) {
        *out++ = (uint16_t)(*in - zero);
    }
    while (out != end) {
        *out++ = 0;
    }
}

/* All rows times `columns` columns from `y` on. */
static ES_NOINLINE void es_times_block(const es_matmul_args *args, const ES_CODE *x,
                                       const ES_CODE *y, int32_t columns, ES_CODE *out,
                                       uint32_t *scratch)
{
    const int32_t words = args->words;
    uint32_t *const packed = scratch + 2 * words;
    for (int32_t c = 0; c < columns; ++c) {
        es_pack(args, y + c * args->y_column, args->y_depth, args->y_zero, packed + c * words);
    }
    for (int32_t r = 0; r < args->rows; r += 2) {
        const int32_t rows = es_min(2, args->rows - r);
        for (int32_t i = 0; i < rows; ++i) {
            es_pack(args, x + (r + i) * args->x_row, args->x_depth, args->x_zero,
                    scratch + i * words);
        }
        for (int32_t c = 0; c < columns; c += 2) {
            tile(args, scratch, packed + c * words, out + r * args->columns + c, rows,
                 es_min(2, columns - c));
        }
    }
}

static inline void es_for_batches(const es_matmul_args *args, const ES_CODE *x, const ES_CODE *y,
                                  ES_CODE *out, uint32_t *scratch)
{
    for (int32_t i = 0; i < args->batch[0]; ++i) {
        for (int32_t j = 0; j < args->batch[1]; ++j) {
            for (int32_t k = 0; k < args->batch[2]; ++k) {
                const ES_CODE *from_x = x + i * args->x_batch[0] + j * args->x_batch[1] +
                                        k * args->x_batch[2];
                const ES_CODE *from_y = y + i * args->y_batch[0] + j * args->y_batch[1] +
                                        k * args->y_batch[2];
                for (int32_t c = 0; c < args->columns; c += args->block) {
                    es_times_block(args, from_x, from_y + c * args->y_column,
                                   es_min(args->block, args->columns - c), out + c, scratch);
                }
                out += args->rows * args->columns;
            }
        }
    }
}
