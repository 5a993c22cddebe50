#include "es_common.h"
#include "es_resize.h"

enum { UNIT = 1 << 10, HALF = UNIT * UNIT / 2, BITS = 20 };

/* Four neighbours of an output position, with weights of 1/2^20. */
typedef struct {
    const int16_t *in[4];
    int32_t weight[4];
} corners;

static ES_NOINLINE void blend(const corners *at, int32_t channels, int16_t *out)
{
    const int16_t *a = at->in[0], *b = at->in[1], *c = at->in[2], *d = at->in[3];
    const int32_t wa = at->weight[0], wb = at->weight[1], wc = at->weight[2], wd = at->weight[3];
    for (int16_t *const end = out + channels; out != end; ++out) {
        const int64_t sum = (int64_t)*a++ * wa + (int64_t)*b++ * wb + (int64_t)*c++ * wc + (int64_t)*d++ * wd;
        /* Rounded half away from zero. */
        *out = (int16_t)(sum > 0 ? (sum + HALF) >> BITS : -((HALF - sum) >> BITS));
    }
}

void es_resize_bilinear_s16(const es_resize_bilinear_args *args, const int16_t *in, int16_t *out)
{
    const int32_t channels = args->channels, line = args->in_width * channels;
    for (int32_t n = 0; n < args->batch; ++n) {
        for (int32_t y = 0; y < args->out_height; ++y) {
            const uint16_t *const row = args->row + 3 * y;
            const int16_t *const top = in + row[0] * line, *const bottom = in + row[1] * line;
            const int32_t down = row[2], up = UNIT - down;
            for (int32_t x = 0; x < args->out_width; ++x) {
                const uint16_t *const column = args->column + 3 * x;
                const int32_t left = column[0] * channels, right = column[1] * channels;
                const int32_t along = column[2], back = UNIT - along;
                const corners at = {
                    {top + left, top + right, bottom + left, bottom + right},
                    {up * back, up * along, down * back, down * along},
                };
                blend(&at, channels, out);
                out += channels;
            }
        }
        in += args->in_height * line;
    }
}
