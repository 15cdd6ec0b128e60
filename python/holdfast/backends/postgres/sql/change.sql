-- Stores a checkpoint, or pending writes to checkpoints of one thread, or both; or does nothing where
-- the thread's row does not let it: an operation was done before, the thread has expired or was
-- deleted, or another holds its lease. Replies a row if all was stored.
-- The thread's row is what all writers and sweeps of a thread wait for: it is changed before anything
-- else is looked at. A chunk that must be there is then looked for by an insertion that finds it in
-- its way, because an insertion sees what is stored at that moment, not what was stored when the
-- statement began. One that is inserted was missing: the last line fails, and all is undone.
-- Pending writes are a log, numbered in the order of the lock: nothing is replaced. Those of a call are
-- one row, or a few; its operation stands with the first.
WITH
-- IF write
entry AS (
    SELECT * FROM unnest($write_namespaces::text[], $write_checkpoints::text[], $made::bigint[],
        $tasks::text[], $writes::bytea[], $write_operations::bytea[])
        WITH ORDINALITY
        AS e (checkpoint_ns, checkpoint_id, made, task_id, data, operation, place)
),
-- END
predecessor AS (
-- IF commit
    SELECT * FROM unnest($parent_namespaces::text[], $parents::text[], $parents_made::bigint[],
        $ranks::bigint[]) AS p (checkpoint_ns, checkpoint_id, made, is_parent)
-- END
-- IF commit write
    UNION ALL
-- END
-- IF write
    SELECT checkpoint_ns, checkpoint_id, made, 0 AS is_parent FROM entry
-- END
), thread AS (
    INSERT INTO {threads} AS t (thread_id, epoch, created_at, updated_at, updated_minute,
        expires_at)
    SELECT {begun} {begins}
    ON CONFLICT (thread_id) DO UPDATE SET {entered}
    WHERE {admitted} AND {undeleted}
-- IF commit
        AND position($operation::bytea IN t.operations || t.operations_before) = 0 AND NOT EXISTS (
            SELECT FROM {checkpoints} AS c
            WHERE c.thread_id = $1 AND c.checkpoint_ns = $namespace
                AND c.checkpoint_id = $checkpoint
                AND position($operation::bytea IN c.operations) > 0)
-- END
-- IF write
        AND NOT EXISTS (
            SELECT FROM entry AS e
            WHERE e.operation <> ''
                AND position(e.operation IN t.operations || t.operations_before) > 0)
        AND NOT EXISTS (
            SELECT FROM entry AS e, LATERAL (
                SELECT operation FROM {writes} AS w
                WHERE w.thread = t.key AND w.checkpoint_id = e.checkpoint_id OFFSET 0) AS w
            WHERE w.operation = e.operation AND e.operation <> '')
-- END
    RETURNING key
), missing AS (
    INSERT INTO {blobs} (thread, id, data)
    SELECT key, id, '' FROM thread, unnest($required::bytea[]) AS required (id)
    ON CONFLICT DO NOTHING
    RETURNING id
), sent AS (
    -- What is sent again heals what was damaged.
    INSERT INTO {blobs} AS b (thread, id, data)
    SELECT key, id, data FROM thread, unnest($chunk_ids::bytea[], $chunks::bytea[])
        AS chunk (id, data)
    ON CONFLICT (thread, id) DO UPDATE SET data = excluded.data WHERE b.data <> excluded.data
-- IF commit
), checkpoint AS (
    INSERT INTO {checkpoints} AS c (thread_id, checkpoint_ns, checkpoint_id, parent_id, record,
        operations, run_id, state, next_node, metadata)
    SELECT $1, $namespace, $checkpoint, $parent::text, $record::bytea, $operation::bytea,
        $run::text, $state::jsonb, $next_node::text, $metadata::jsonb
    FROM thread
    ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id) DO UPDATE SET
        parent_id = excluded.parent_id, record = excluded.record,
        operations = excluded.operations || substring(c.operations FOR {remembered}),
        run_id = excluded.run_id, state = excluded.state, next_node = excluded.next_node,
        metadata = excluded.metadata
    -- The first attempt at it may have come between: the row is looked at as it is at that moment.
    WHERE position($operation::bytea IN c.operations) = 0
-- END
-- IF write
), pending AS (
    INSERT INTO {writes} (thread, checkpoint_ns, checkpoint_id, task_id, operation, data)
    SELECT key, checkpoint_ns, checkpoint_id, task_id, nullif(operation, ''), data
    FROM thread, entry ORDER BY place
-- END
)
SELECT 1 / (NOT EXISTS (SELECT FROM missing))::integer FROM thread
