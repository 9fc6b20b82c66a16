/* A log-linear histogram of nanoseconds: 64 steps per power of two, so a percentile is at most 1.6 % too high. */
#ifndef HELIOGRAPH_BENCH_HISTOGRAM_H
#define HELIOGRAPH_BENCH_HISTOGRAM_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { HISTOGRAM_STEPS = 64, HISTOGRAM_BUCKETS = 64 * 59 };

struct histogram {
    uint64_t count, buckets[HISTOGRAM_BUCKETS];
    int64_t max;
};

static inline void histogram_add(struct histogram *histogram, int64_t value) {
    if (value < 0) value = 0;
    if (value > histogram->max) histogram->max = value;
    uint32_t bucket = (uint32_t)value;
    if (value >= HISTOGRAM_STEPS) {
        int shift = 63 - __builtin_clzll((uint64_t)value) - 6;
        bucket = (uint32_t)(shift * HISTOGRAM_STEPS + (value >> shift));
    }
    histogram->buckets[bucket]++;
    histogram->count++;
}

static inline double histogram_ms(const struct histogram *histogram, double share) {
    uint64_t seen = 0, wanted = (uint64_t)(share * (double)histogram->count);
    if (histogram->count == 0) return 0;
    if (wanted >= histogram->count) wanted = histogram->count - 1;
    for (int bucket = 0; bucket < HISTOGRAM_BUCKETS; bucket++) {
        seen += histogram->buckets[bucket];
        if (seen <= wanted) continue;
        int64_t top = bucket;
        if (bucket >= HISTOGRAM_STEPS) {
            int shift = bucket / HISTOGRAM_STEPS - 1;
            top = (((int64_t)(bucket % HISTOGRAM_STEPS) + HISTOGRAM_STEPS + 1) << shift) - 1;
        }
        return (double)(top < histogram->max ? top : histogram->max) / 1e6;
    }
    return (double)histogram->max / 1e6;
}

static inline void histogram_print(const char *name, const struct histogram *histogram) {
    printf("\"%s\":{\"count\":%llu,\"p50\":%.4f,\"p90\":%.4f,\"p99\":%.4f,\"p999\":%.4f,\"max\":%.4f}", name,
           (unsigned long long)histogram->count, histogram_ms(histogram, 0.5), histogram_ms(histogram, 0.9),
           histogram_ms(histogram, 0.99), histogram_ms(histogram, 0.999), (double)histogram->max / 1e6);
}

#endif
