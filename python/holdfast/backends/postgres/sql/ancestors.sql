-- A checkpoint, or the one with the greatest id, and its parents, with their pending writes.
-- $1 thread, $2 namespace, $3 checkpoint or null, $4 how many at most
WITH RECURSIVE thread AS (
    SELECT key FROM {threads} WHERE thread_id = $1 AND {unexpired}
), line (checkpoint_id, record, parent_id, depth) AS (
    SELECT checkpoint_id, record, parent_id, 1 FROM {checkpoints}
    WHERE thread_id = $1 AND checkpoint_ns = $2 AND checkpoint_id = coalesce($3::text, (
        -- Not max(): where the planner expects few checkpoints, it would read all.
        SELECT checkpoint_id FROM {checkpoints} WHERE thread_id = $1 AND checkpoint_ns = $2
        ORDER BY checkpoint_id DESC LIMIT 1)) AND EXISTS (SELECT FROM thread)
    UNION ALL
    SELECT parent.checkpoint_id, parent.record, parent.parent_id, depth + 1
    FROM line, LATERAL (
        SELECT checkpoint_id, record, parent_id FROM {checkpoints}
        WHERE thread_id = $1 AND checkpoint_ns = $2
            AND {checkpoints}.checkpoint_id = line.parent_id OFFSET 0
    ) AS parent
    WHERE depth < $4::integer
)
SELECT 'record', depth, NULL::bigint, checkpoint_id, NULL::integer, record FROM line
UNION ALL
SELECT 'write', depth, w.number, w.task_id, w.idx, w.data
FROM line, LATERAL (
    SELECT number, task_id, idx, data FROM {writes}
    WHERE thread = (SELECT key FROM thread) AND checkpoint_ns = $2
        AND {writes}.checkpoint_id = line.checkpoint_id OFFSET 0
) AS w
