#include "tests/bench/bench.h"

void bench_contention_rows(void)
{
}
