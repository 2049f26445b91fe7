#include "tests/bench/bench.h"

void bench_worker_rows(void)
{
}
