-- azoth: projection p
-- azoth: on-error retry 5 100ms..5s then dead-letter
-- azoth: on a
SELECT 1;
