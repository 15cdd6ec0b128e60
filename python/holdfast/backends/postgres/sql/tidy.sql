-- Removes a thread, which is locked, if nothing of it remains.
-- $1 thread
WITH thread AS (
    DELETE FROM {threads} AS t
    WHERE thread_id = $1
        AND NOT EXISTS (SELECT FROM {checkpoints} AS c WHERE c.thread_id = $1)
        AND NOT EXISTS (SELECT FROM {writes} AS w WHERE w.thread = t.key)
    RETURNING key
)
DELETE FROM {blobs} USING thread WHERE thread = key
