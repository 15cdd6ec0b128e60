-- One checkpoint, or the one with the greatest id, with its pending writes and all chunks that they
-- reach, as of one moment. What the caller has ($4) is left out, with all below it. Behind a SELECT
-- its number does not move the planner to plan anew for each call.
-- $1 thread, $2 namespace, $3 checkpoint or null, $4 chunk ids
WITH RECURSIVE thread AS (
    SELECT key FROM {threads} WHERE thread_id = $1 AND {unexpired}
), head AS (
    SELECT checkpoint_id, record FROM {checkpoints}
    WHERE thread_id = $1 AND checkpoint_ns = $2 AND checkpoint_id = coalesce($3::text, (
        -- Not max(): where the planner expects few checkpoints, it would read all.
        SELECT checkpoint_id FROM {checkpoints} WHERE thread_id = $1 AND checkpoint_ns = $2
        ORDER BY checkpoint_id DESC LIMIT 1)) AND EXISTS (SELECT FROM thread)
), pending AS (
    SELECT number, task_id, idx, data FROM {writes}
    WHERE thread = (SELECT key FROM thread) AND checkpoint_ns = $2
        AND checkpoint_id = (SELECT checkpoint_id FROM head)
), reached (level, id) AS (
    SELECT r.level, r.id
    FROM (SELECT record FROM head UNION ALL SELECT data FROM pending) AS stored (data),
        LATERAL {references:stored.data} AS r
    WHERE r.id <> ALL ((SELECT $4::bytea[])::bytea[])
    UNION
    SELECT r.level, r.id
    FROM reached, LATERAL (
        -- OFFSET: a look at the index for each, whatever the planner thinks of their number.
        SELECT data FROM {blobs}
        WHERE thread = (SELECT key FROM thread) AND {blobs}.id = reached.id OFFSET 0
    ) AS page, LATERAL {references:page.data} AS r
    WHERE reached.level > 0 AND r.id <> ALL ((SELECT $4::bytea[])::bytea[])
)
SELECT 'record', NULL::bigint, checkpoint_id, NULL::integer, NULL::bytea, record FROM head
UNION ALL
SELECT 'write', number, task_id, idx, NULL, data FROM pending
UNION ALL
SELECT 'chunk', NULL, NULL, NULL, id, (
    SELECT data FROM {blobs}
    WHERE thread = (SELECT key FROM thread) AND {blobs}.id = reached.id)
FROM reached
