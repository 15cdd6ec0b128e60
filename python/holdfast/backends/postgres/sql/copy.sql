-- Copies all of a thread, as it is at one moment, to another, or does nothing, as change.sql; a
-- deletion of the target is no hindrance. Replies a row if it was copied, or there is nothing to copy.
-- $1 target, $2 epoch of a new thread, $3 seconds until it expires or null, $4 source, $5 operation;
-- and of the fence, if there is one, $6 token, $7 seconds
WITH source AS (
    SELECT key FROM {threads} WHERE thread_id = $4 AND created_at IS NOT NULL AND {unexpired}
), target AS (
    INSERT INTO {threads} AS t (thread_id, epoch, created_at, updated_at, updated_minute,
        expires_at, operations)
    SELECT {begun}, $5::bytea FROM source {begins}
    ON CONFLICT (thread_id) DO UPDATE SET {entered}, {remember:$5::bytea}
    WHERE {admitted} AND position($5::bytea IN t.operations || t.operations_before) = 0
    RETURNING key
), blobs AS (
    INSERT INTO {blobs} (thread, id, data)
    SELECT target.key, id, data FROM target, source, {blobs} AS b WHERE b.thread = source.key
    ON CONFLICT DO NOTHING
), writes AS (
    -- What the target has already is not written behind what came to it since.
    INSERT INTO {writes} (thread, checkpoint_ns, checkpoint_id, task_id, idx, operation, data)
    SELECT target.key, checkpoint_ns, checkpoint_id, task_id, idx, operation, data
    FROM target, source, {writes} AS w
    WHERE w.thread = source.key AND NOT EXISTS (
        SELECT FROM {writes} AS h
        WHERE h.thread = target.key AND h.checkpoint_id = w.checkpoint_id
            AND h.checkpoint_ns = w.checkpoint_ns AND h.task_id = w.task_id
            AND h.idx IS NOT DISTINCT FROM w.idx AND h.data = w.data)
    ORDER BY number
), checkpoints AS (
    INSERT INTO {checkpoints} (thread_id, checkpoint_ns, checkpoint_id, parent_id, record,
        operations, run_id, state, next_node, metadata)
    SELECT $1, checkpoint_ns, checkpoint_id, parent_id, record, c.operations, run_id, state,
        next_node, metadata
    FROM target, {checkpoints} AS c WHERE c.thread_id = $4
    ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id) DO UPDATE SET
        parent_id = excluded.parent_id, record = excluded.record, run_id = excluded.run_id,
        state = excluded.state, next_node = excluded.next_node, metadata = excluded.metadata
)
SELECT 1 WHERE EXISTS (SELECT FROM target) OR NOT EXISTS (SELECT FROM source)
