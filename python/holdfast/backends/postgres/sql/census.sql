-- All records of a thread, and the places of writes that have none, as of one moment.
-- $1 thread
WITH thread AS (
    SELECT key, epoch FROM {threads} WHERE thread_id = $1 AND {unexpired}
)
SELECT 'thread', NULL, NULL, epoch, NULL::bytea FROM thread
UNION ALL
SELECT 'record', checkpoint_ns, checkpoint_id, NULL, record
FROM {checkpoints} WHERE thread_id = $1 AND EXISTS (SELECT FROM thread)
UNION ALL
SELECT DISTINCT 'orphan', w.checkpoint_ns, w.checkpoint_id, NULL::bigint, NULL::bytea
FROM {writes} AS w
WHERE w.thread = (SELECT key FROM thread) AND NOT EXISTS (
    SELECT FROM {checkpoints} AS c
    WHERE c.thread_id = $1 AND c.checkpoint_ns = w.checkpoint_ns
        AND c.checkpoint_id = w.checkpoint_id)
