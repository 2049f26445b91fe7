#include "tests/bench/bench.h"

void bench_feed_rows(void)
{
}
