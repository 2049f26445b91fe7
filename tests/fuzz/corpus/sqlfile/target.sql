-- azoth: projection p
-- azoth: target postgresql host=/run/postgresql dbname='a b' password=x
-- azoth: on-error dead-letter
-- azoth: migration 1 one
CREATE TABLE t (id BIGINT, v TEXT);
-- azoth: on put
INSERT INTO t VALUES (@id, :v::text);
