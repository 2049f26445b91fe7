#include "tests/bench/bench.h"

void bench_growth_rows(void)
{
}
