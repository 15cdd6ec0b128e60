-- Stores pending writes to checkpoints of one thread, as commit.sql stores a checkpoint. Nothing is
-- replaced: the writes are a log, numbered in the order of the lock.
-- $1 thread, $2 namespaces, $3 checkpoints, $4 tasks, $5 indexes, $6 writes, $7 operations, with the
-- first write of each, $8 chunk ids, $9 chunks, $10 ids of chunks that must be there, $11 epoch of a
-- new thread
WITH entry AS (
    SELECT * FROM unnest($2::text[], $3::text[], $4::text[], $5::integer[], $6::bytea[],
        $7::bytea[]) WITH ORDINALITY
        AS e (checkpoint_ns, checkpoint_id, task_id, idx, data, operation, place)
), thread AS (
    INSERT INTO {threads} AS t (thread_id, epoch) VALUES ($1, $11::bigint)
    ON CONFLICT (thread_id) DO UPDATE SET epoch = t.epoch + 1, updated_at = now()
    WHERE NOT EXISTS (
        SELECT FROM entry AS e, LATERAL (
            SELECT operation FROM {writes} AS w
            WHERE w.thread = t.key AND w.checkpoint_id = e.checkpoint_id OFFSET 0) AS w
        WHERE w.operation = e.operation AND e.operation <> '')
    RETURNING key
), missing AS (
    INSERT INTO {blobs} (thread, id, data)
    SELECT key, id, '' FROM thread, unnest($10::bytea[]) AS required (id)
    ON CONFLICT DO NOTHING
    RETURNING id
), sent AS (
    INSERT INTO {blobs} AS b (thread, id, data)
    SELECT key, id, data FROM thread, unnest($8::bytea[], $9::bytea[]) AS chunk (id, data)
    ON CONFLICT (thread, id) DO UPDATE SET data = excluded.data WHERE b.data <> excluded.data
), stored AS (
    INSERT INTO {writes} (thread, checkpoint_ns, checkpoint_id, task_id, idx, operation, data)
    SELECT key, checkpoint_ns, checkpoint_id, task_id, idx, nullif(operation, ''), data
    FROM thread, entry ORDER BY place
)
SELECT 1 / (count(*) = 0)::integer FROM missing
