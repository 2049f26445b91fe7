-- azoth: projection p
-- azoth: migration 2 b
-- azoth: migration 1 a
SELECT 1;
-- azoth: undo
-- azoth: undo
-- azoth: on a, a
-- azoth: frob
SELECT 2;
