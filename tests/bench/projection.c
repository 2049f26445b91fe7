#include "tests/bench/bench.h"

void bench_projection_rows(void)
{
}
