-- azoth: projection p
-- azoth: on-error retry 5 fibonacci 100ms..5s then dead-letter
-- azoth: on-error retry 2 fixed 1s then log-and-skip for a, b
-- azoth: replay every 1min, age 30s, by attempts, batch 50, attempts 7, stop-after 5, backoff exponential 1s..1h
-- azoth: order-by :account
-- azoth: breaker 10 failures in 1min, open 30s, probes 2
-- azoth: on a, b
SELECT 1;
