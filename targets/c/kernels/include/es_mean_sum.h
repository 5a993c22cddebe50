/* The sum of a mean's reduced axes at one output; include it after defining ES_CODE, the
 * elements' type. */
static int32_t es_sum_at(const es_mean_args *args, const ES_CODE *in)
{
    const int32_t *const size = args->reduced, *const step = args->reduced_step;
    int32_t sum = 0;
    for (int32_t i = 0; i < size[0]; ++i) {
        for (int32_t j = 0; j < size[1]; ++j) {
            const ES_CODE *x = in + i * step[0] + j * step[1];
            for (int32_t k = size[2]; k > 0; --k) {
                sum += *x;
                x += step[2];
            }
        }
    }
    return sum;
}
