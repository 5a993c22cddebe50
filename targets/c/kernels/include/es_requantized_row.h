/* A row of a broadcast, requantized; include it after defining, for arguments of type ES_ARGS and
 * elements of type ES_CODE,
 *     static int32_t combined(const ES_ARGS *, int32_t a, int32_t b);
 * which gives what is requantized. */

/* From element `i` on, where `a` and `b` are. */
static inline void es_finish_row(const ES_ARGS *args, int32_t i, const ES_CODE *a,
                                 const ES_CODE *b, ES_CODE *out)
{
    const ES_ARGS by = *args;
    for (; i < by.shape.count; ++i) {
        const int32_t scaled = es_requantize(combined(&by, *a, *b), by.multiplier, by.shift);
        out[i] = (ES_CODE)(es_clamp(scaled, by.low, by.high) + by.zero);
        a += by.shape.step_a;
        b += by.shape.step_b;
    }
}
