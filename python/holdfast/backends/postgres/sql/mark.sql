-- The epoch of a thread, and the bytes of all its records and pending writes, as of one moment.
-- $1 thread
SELECT epoch, NULL::bytea FROM {threads} WHERE thread_id = $1
UNION ALL
SELECT NULL, record FROM {checkpoints} WHERE thread_id = $1
UNION ALL
SELECT NULL, data FROM {writes} WHERE thread = (SELECT key FROM {threads} WHERE thread_id = $1)
