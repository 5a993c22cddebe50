/* Bilinear resizing; include it after defining
 *     ES_KERNEL  the kernel's name,
 *     ES_CODE    type of the elements,
 *     ES_SUM     type that holds a code times 2^20. */

enum { ES_UNIT = 1 << 10, ES_HALF = ES_UNIT * ES_UNIT / 2, ES_BITS = 20 };

/* Four neighbours of an output position, with weights of 1/2^20. */
typedef struct {
    const ES_CODE *in[4];
    int32_t weight[4];
} es_corners;

static ES_NOINLINE void es_blend(const es_corners *at, int32_t channels, ES_CODE *out)
{
    const ES_CODE *a = at->in[0], *b = at->in[1], *c = at->in[2], *d = at->in[3];
    const int32_t wa = at->weight[0], wb = at->weight[1], wc = at->weight[2], wd = at->weight[3];
    for (ES_CODE *const end = out + channels; out != end; ++out) {
        const ES_SUM sum = (ES_SUM)*a++ * wa + (ES_SUM)*b++ * wb + (ES_SUM)*c++ * wc +
                           (ES_SUM)*d++ * wd;
        /* Rounded half away from zero. */
        *out = (ES_CODE)(sum > 0 ? (sum + ES_HALF) >> ES_BITS : -((ES_HALF - sum) >> ES_BITS));
    }
}

void ES_KERNEL(const es_resize_bilinear_args *args, const ES_CODE *in, ES_CODE *out)
{
    const int32_t channels = args->channels, line = args->in_width * channels;
    for (int32_t n = 0; n < args->batch; ++n) {
        for (int32_t y = 0; y < args->out_height; ++y) {
            const uint16_t *const row = args->row + 3 * y;
            const ES_CODE *const top = in + row[0] * line, *const bottom = in + row[1] * line;
            const int32_t down = row[2], up = ES_UNIT - down;
            for (int32_t x = 0; x < args->out_width; ++x) {
                const uint16_t *const column = args->column + 3 * x;
                const int32_t left = column[0] * channels, right = column[1] * channels;
                const int32_t along = column[2], back = ES_UNIT - along;
                const es_corners at = {
                    {top + left, top + right, bottom + left, bottom + right},
                    {up * back, up * along, down * back, down * along},
                };
                es_blend(&at, channels, out);
                out += channels;
            }
        }
        in += args->in_height * line;
    }
}
