-- As lock.sql; where there is no such thread, it keeps others from beginning it meanwhile: its row is
-- then there until the transaction ends, and nothing lives in it.
-- $1 thread, $2 epoch of a new thread
INSERT INTO {threads} AS t (thread_id, epoch, created_at) VALUES ($1, $2::bigint, NULL)
ON CONFLICT (thread_id) DO UPDATE SET epoch = t.epoch WHERE false
