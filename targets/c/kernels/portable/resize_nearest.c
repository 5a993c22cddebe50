#include "es_common.h"
#include "es_resize.h"

void es_resize_nearest(const es_resize_nearest_args *args, const void *in, void *out)
{
    const size_t pixel = (size_t)args->pixel;
    const size_t in_line = (size_t)args->in_width * pixel;
    const size_t out_line = (size_t)args->out_width * pixel;
    const uint8_t *image = in;
    uint8_t *to = out;
    for (int32_t n = 0; n < args->batch; ++n) {
        for (int32_t y = 0; y < args->out_height; ++y) {
            if (y > 0 && args->row[y] == args->row[y - 1]) {
                memcpy(to, to - out_line, out_line);
                to += out_line;
                continue;
            }
            const uint8_t *line = image + args->row[y] * in_line;
            for (int32_t x = 0; x < args->out_width; ++x) {
                memcpy(to, line + args->column[x] * pixel, pixel);
                to += pixel;
            }
        }
        image += (size_t)args->in_height * in_line;
    }
}
