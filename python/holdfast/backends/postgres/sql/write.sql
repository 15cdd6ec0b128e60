-- Stores pending writes to checkpoints of one thread, as commit.sql stores a checkpoint, or does
-- nothing. Nothing is replaced: the writes are a log, numbered in the order of the lock.
-- $1 thread, $2 epoch of a new thread, $3 seconds until it expires or null, $4 namespaces,
-- $5 checkpoints, $6 when these were made, $7 tasks, $8 indexes, $9 writes, $10 operations, with the
-- first write of each, $11 chunk ids, $12 chunks, $13 ids of chunks that must be there; and of the
-- fence, if there is one, $14 token, $15 seconds
WITH entry AS (
    SELECT * FROM unnest($4::text[], $5::text[], $6::bigint[], $7::text[], $8::bigint[],
        $9::bytea[], $10::bytea[]) WITH ORDINALITY
        AS e (checkpoint_ns, checkpoint_id, made, task_id, idx, data, operation, place)
), predecessor AS (
    SELECT checkpoint_ns, checkpoint_id, made, 0 AS is_parent FROM entry
), thread AS (
    INSERT INTO {threads} AS t (thread_id, epoch, created_at, updated_at, updated_minute,
        expires_at)
    SELECT {begun} {begins}
    ON CONFLICT (thread_id) DO UPDATE SET {entered}
    WHERE {admitted} AND {undeleted} AND NOT EXISTS (
        SELECT FROM entry AS e
        WHERE e.operation <> ''
            AND position(e.operation IN t.operations || t.operations_before) > 0
    ) AND NOT EXISTS (
        SELECT FROM entry AS e, LATERAL (
            SELECT operation FROM {writes} AS w
            WHERE w.thread = t.key AND w.checkpoint_id = e.checkpoint_id OFFSET 0) AS w
        WHERE w.operation = e.operation AND e.operation <> '')
    RETURNING key
), missing AS (
    INSERT INTO {blobs} (thread, id, data)
    SELECT key, id, '' FROM thread, unnest($13::bytea[]) AS required (id)
    ON CONFLICT DO NOTHING
    RETURNING id
), sent AS (
    INSERT INTO {blobs} AS b (thread, id, data)
    SELECT key, id, data FROM thread, unnest($11::bytea[], $12::bytea[]) AS chunk (id, data)
    ON CONFLICT (thread, id) DO UPDATE SET data = excluded.data WHERE b.data <> excluded.data
), stored AS (
    INSERT INTO {writes} (thread, checkpoint_ns, checkpoint_id, task_id, idx, operation, data)
    SELECT key, checkpoint_ns, checkpoint_id, task_id, idx::integer, nullif(operation, ''), data
    FROM thread, entry ORDER BY place
)
SELECT 1 / (NOT EXISTS (SELECT FROM missing))::integer FROM thread
