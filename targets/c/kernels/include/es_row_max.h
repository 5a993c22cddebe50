/* The largest code of a row; include it after defining ES_CODE, the elements' type. */
static inline int32_t es_row_max(const ES_CODE *in, int32_t count)
{
    int32_t most = in[0];
    for (int32_t i = 1; i < count; ++i) {
        most = es_max(most, in[i]);
    }
    return most;
}
