-- The epoch of a thread, and the bytes of all its records and pending writes, as of one moment.
-- $1 thread
WITH thread AS (
    SELECT key, epoch FROM {threads} WHERE thread_id = $1 AND {unexpired}
)
SELECT epoch, NULL::bytea FROM thread
UNION ALL
SELECT NULL, record FROM {checkpoints} WHERE thread_id = $1 AND EXISTS (SELECT FROM thread)
UNION ALL
SELECT NULL, data FROM {writes} WHERE thread = (SELECT key FROM thread)
