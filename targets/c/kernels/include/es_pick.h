/* Elements picked one by one; include it after defining
 *     ES_KERNEL  the kernel's name,
 *     ES_CODE    type of the elements. */
void ES_KERNEL(const es_pick_args *args, const ES_CODE *in, ES_CODE *out)
{
    const int32_t *const size = args->size, *const step = args->step;
    const int32_t count = size[4], stride = step[4];
    for (int32_t i = 0; i < size[0]; ++i) {
        for (int32_t j = 0; j < size[1]; ++j) {
            for (int32_t k = 0; k < size[2]; ++k) {
                const ES_CODE *row = in + args->offset + i * step[0] + j * step[1] + k * step[2];
                for (int32_t l = size[3]; l > 0; --l) {
                    const ES_CODE *from = row;
                    for (int32_t m = count; m > 0; --m) {
                        *out++ = *from;
                        from += stride;
                    }
                    row += step[3];
                }
            }
        }
    }
}
