-- Removes checkpoints with their writes from a thread, which is locked, and replaces records that
-- are as they were read. Does nothing where the epoch has moved. The thread remembers the operation,
-- and those by which the checkpoints and writes came shortly before, so that none is done again.
-- Replies whether the operation was done, now or before.
-- $1 thread, $2 epoch or null, $3 operation, $4 and $5 namespaces and checkpoints to remove,
-- $6 and $7 those to replace, $8 and $9 their old and new records
WITH before AS (
    SELECT key, position($3::bytea IN operations || operations_before) > 0 AS is_done
    FROM {threads} WHERE thread_id = $1 AND created_at IS NOT NULL AND {unexpired}
), doomed AS (
    SELECT * FROM unnest($4::text[], $5::text[]) AS d (checkpoint_ns, checkpoint_id)
), recent AS (
    SELECT string_agg(c.operations, '') AS operations
    FROM doomed AS d, LATERAL (
        SELECT operations FROM {checkpoints}
        WHERE thread_id = $1 AND {checkpoints}.checkpoint_ns = d.checkpoint_ns
            AND {checkpoints}.checkpoint_id = d.checkpoint_id
            -- Of one that was put again, created_at says when that was first.
            AND (created_at > now() - interval '{keep} seconds' OR length(operations) > 8) OFFSET 0
    ) AS c
), written AS (
    -- A write does not say when it came: of these, the last.
    SELECT string_agg(w.operation, '') AS operations
    FROM (
        SELECT w.operation
        FROM before, doomed AS d, {writes} AS w
        WHERE w.thread = before.key AND w.checkpoint_ns = d.checkpoint_ns
            AND w.checkpoint_id = d.checkpoint_id AND w.operation IS NOT NULL
        ORDER BY w.number DESC LIMIT 64
    ) AS w
), thread AS (
    UPDATE {threads} AS t SET epoch = epoch + 1,
        {remember:$3::bytea || coalesce((SELECT operations FROM recent), '')
            || coalesce((SELECT operations FROM written), '')}
    WHERE thread_id = $1 AND epoch = coalesce($2::bigint, epoch)
        AND EXISTS (SELECT FROM before WHERE NOT is_done)
    RETURNING key
), checkpoints AS (
    DELETE FROM {checkpoints} AS c USING thread, doomed AS d
    WHERE c.thread_id = $1 AND c.checkpoint_ns = d.checkpoint_ns
        AND c.checkpoint_id = d.checkpoint_id
), writes AS (
    DELETE FROM {writes} AS w USING thread, doomed AS d
    WHERE w.thread = key AND w.checkpoint_ns = d.checkpoint_ns
        AND w.checkpoint_id = d.checkpoint_id
), replaced AS (
    UPDATE {checkpoints} AS c SET record = r.new, parent_id = NULL
    FROM thread, unnest($6::text[], $7::text[], $8::bytea[], $9::bytea[])
        AS r (checkpoint_ns, checkpoint_id, old, new)
    WHERE c.thread_id = $1 AND c.checkpoint_ns = r.checkpoint_ns
        AND c.checkpoint_id = r.checkpoint_id AND c.record = r.old
)
SELECT is_done OR EXISTS (SELECT FROM thread) FROM before
