-- Removes chunks, unless the thread's epoch has moved: whoever changes the thread now waits until this
-- is done. Replies whether it was done; true where there is no such thread.
-- $1 thread, $2 epoch, $3 chunk ids
WITH thread AS (
    SELECT key FROM {threads}
    WHERE thread_id = $1 AND epoch = $2::bigint AND created_at IS NOT NULL AND {unexpired}
    FOR NO KEY UPDATE
), discarded AS (
    DELETE FROM {blobs} USING thread WHERE thread = key AND id = ANY ($3::bytea[])
)
SELECT EXISTS (SELECT FROM thread) OR NOT EXISTS (
    SELECT FROM {threads} WHERE thread_id = $1 AND created_at IS NOT NULL AND {unexpired})
