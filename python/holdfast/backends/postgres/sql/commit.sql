-- Stores a checkpoint, or does nothing where the thread's row does not let it: the operation was done
-- before, the thread has expired or was deleted, or another holds its lease. Replies a row if it was
-- stored.
-- The thread's row is what all writers and sweeps of a thread wait for: it is changed before anything
-- else is looked at. A chunk that must be there is then looked for by an insertion that finds it in
-- its way, because an insertion sees what is stored at that moment, not what was stored when the
-- statement began. One that is inserted was missing: the last line fails, and all is undone.
-- $1 thread, $2 epoch of a new thread, $3 seconds until it expires or null, $4 to $7 predecessors,
-- $8 namespace, $9 checkpoint, $10 parent, $11 record, $12 operation, $13 chunk ids, $14 chunks,
-- $15 ids of chunks that must be there, $16 run, $17 state, $18 next node, $19 metadata; and of the
-- fence, if there is one, $20 token, $21 seconds
WITH predecessor AS (
    SELECT * FROM unnest($4::text[], $5::text[], $6::bigint[], $7::bigint[])
        AS p (checkpoint_ns, checkpoint_id, made, is_parent)
), thread AS (
    INSERT INTO {threads} AS t (thread_id, epoch, created_at, updated_at, updated_minute,
        expires_at)
    SELECT {begun} {begins}
    ON CONFLICT (thread_id) DO UPDATE SET {entered}
    WHERE {admitted} AND {undeleted}
        AND position($12::bytea IN t.operations || t.operations_before) = 0 AND NOT EXISTS (
            SELECT FROM {checkpoints} AS c
            WHERE c.thread_id = $1 AND c.checkpoint_ns = $8 AND c.checkpoint_id = $9
                AND position($12::bytea IN c.operations) > 0)
    RETURNING key
), missing AS (
    INSERT INTO {blobs} (thread, id, data)
    SELECT key, id, '' FROM thread, unnest($15::bytea[]) AS required (id)
    ON CONFLICT DO NOTHING
    RETURNING id
), sent AS (
    -- What is sent again heals what was damaged.
    INSERT INTO {blobs} AS b (thread, id, data)
    SELECT key, id, data FROM thread, unnest($13::bytea[], $14::bytea[]) AS chunk (id, data)
    ON CONFLICT (thread, id) DO UPDATE SET data = excluded.data WHERE b.data <> excluded.data
), stored AS (
    INSERT INTO {checkpoints} AS c (thread_id, checkpoint_ns, checkpoint_id, parent_id, record,
        operations, run_id, state, next_node, metadata)
    SELECT $1, $8, $9, $10::text, $11::bytea, $12::bytea, $16::text, $17::jsonb, $18::text,
        $19::jsonb
    FROM thread
    ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id) DO UPDATE SET
        parent_id = excluded.parent_id, record = excluded.record,
        operations = excluded.operations || substring(c.operations FOR {remembered}),
        run_id = excluded.run_id, state = excluded.state, next_node = excluded.next_node,
        metadata = excluded.metadata
    -- The first attempt at it may have come between: the row is looked at as it is at that moment.
    WHERE position($12::bytea IN c.operations) = 0
)
SELECT 1 / (NOT EXISTS (SELECT FROM missing))::integer FROM thread
