-- azoth: projection p
-- azoth: on x
SELECT 'a
-- b';
/* c