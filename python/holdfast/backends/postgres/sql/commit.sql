-- Stores a checkpoint whole or not at all; a repeated operation does nothing.
--
-- The thread's row is what writers and sweeps of a thread wait for: it is changed before anything
-- else is looked at. A chunk that must be there is then looked for by an insertion that finds it in
-- its way, because an insertion sees what is stored at that moment, not what was stored when the
-- statement began. One that is inserted was missing: the last line fails, and all is undone.
-- $1 thread, $2 namespace, $3 checkpoint, $4 parent, $5 record, $6 operation, $7 chunk ids,
-- $8 chunks, $9 ids of chunks that must be there, $10 run, $11 state, $12 next node, $13 metadata,
-- $14 epoch of a new thread
WITH thread AS (
    INSERT INTO {threads} AS t (thread_id, epoch) VALUES ($1, $14::bigint)
    ON CONFLICT (thread_id) DO UPDATE SET epoch = t.epoch + 1, updated_at = now()
    WHERE position($6::bytea IN t.operations || t.operations_before) = 0 AND NOT EXISTS (
        SELECT FROM {checkpoints} AS c
        WHERE c.thread_id = $1 AND c.checkpoint_ns = $2 AND c.checkpoint_id = $3
            AND position($6::bytea IN c.operations) > 0)
    RETURNING key
), missing AS (
    INSERT INTO {blobs} (thread, id, data)
    SELECT key, id, '' FROM thread, unnest($9::bytea[]) AS required (id)
    ON CONFLICT DO NOTHING
    RETURNING id
), sent AS (
    -- What is sent again heals what was damaged.
    INSERT INTO {blobs} AS b (thread, id, data)
    SELECT key, id, data FROM thread, unnest($7::bytea[], $8::bytea[]) AS chunk (id, data)
    ON CONFLICT (thread, id) DO UPDATE SET data = excluded.data WHERE b.data <> excluded.data
), stored AS (
    INSERT INTO {checkpoints} AS c (thread_id, checkpoint_ns, checkpoint_id, parent_id, record,
        operations, run_id, state, next_node, metadata)
    SELECT $1, $2, $3, $4::text, $5::bytea, $6::bytea, $10::text, $11::jsonb, $12::text, $13::jsonb
    FROM thread
    ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id) DO UPDATE SET
        parent_id = excluded.parent_id, record = excluded.record,
        operations = excluded.operations || substring(c.operations FOR {remembered}),
        run_id = excluded.run_id, state = excluded.state, next_node = excluded.next_node, metadata = excluded.metadata
    -- The first attempt at it may have come between: the row is looked at as it is at that moment.
    WHERE position($6::bytea IN c.operations) = 0
)
SELECT 1 / (count(*) = 0)::integer FROM missing
