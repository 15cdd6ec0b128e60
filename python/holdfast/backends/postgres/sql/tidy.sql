-- Removes a thread, which is locked, if nothing of it remains. Its tombstone and its lease do.
-- $1 thread
WITH thread AS (
    SELECT key, coalesce({leased}, false)
        OR coalesce(deleted_at > statement_timestamp() - interval '{tombstone} seconds', false)
        AS stays
    FROM {threads} AS t
    WHERE thread_id = $1 AND created_at IS NOT NULL
        AND NOT EXISTS (SELECT FROM {checkpoints} AS c WHERE c.thread_id = $1)
        AND NOT EXISTS (SELECT FROM {writes} AS w WHERE w.thread = t.key)
), removed AS (
    DELETE FROM {threads} USING thread WHERE thread_id = $1 AND NOT stays
), kept AS (
    UPDATE {threads} AS t SET epoch = epoch + 1, created_at = NULL, expires_at = NULL,
        is_persistent = false
    FROM thread WHERE thread_id = $1 AND stays
)
DELETE FROM {blobs} USING thread WHERE thread = key
