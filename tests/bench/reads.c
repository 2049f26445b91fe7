#include "tests/bench/bench.h"

void bench_read_rows(void)
{
}
