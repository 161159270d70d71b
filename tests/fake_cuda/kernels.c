// Kernels for tests, on int64: what a stage does to a batch. A nonzero return is an illegal address.
#include <stddef.h>

typedef long long i64;
typedef struct { const i64* source; i64* target; i64 count; } Arrays;

int fake_triple(const unsigned* grid, const unsigned* block, const Arrays* a) {
    (void)grid, (void)block;
    for (i64 i = 0; i < a->count; ++i) a->target[i] = 3 * a->source[i];
    return 0;
}
int fake_increment(const unsigned* grid, const unsigned* block, const Arrays* a) {
    (void)grid, (void)block;
    for (i64 i = 0; i < a->count; ++i) a->target[i] = a->source[i] + 1;
    return 0;
}
int fake_crash(const unsigned* grid, const unsigned* block, const Arrays* a) {
    (void)grid, (void)block, (void)a;
    return 1;
}
