-- As lock.sql; where there is no such thread, it keeps others from beginning it meanwhile: it is
-- then there until the transaction ends.
-- $1 thread, $2 epoch of a new thread
INSERT INTO {threads} AS t (thread_id, epoch) VALUES ($1, $2::bigint)
ON CONFLICT (thread_id) DO UPDATE SET epoch = t.epoch WHERE false
