-- Chunks, and all that they reach.
-- $1 thread, $2 chunk ids
WITH RECURSIVE thread AS (
    SELECT key FROM {threads} WHERE thread_id = $1 AND {unexpired}
), reached (level, id) AS (
    SELECT 255, id FROM unnest($2::bytea[]) AS asked (id)
    UNION
    SELECT CASE WHEN r.level > 0 THEN 255 ELSE 0 END, r.id
    FROM reached, LATERAL (
        SELECT data FROM {blobs}
        WHERE thread = (SELECT key FROM thread) AND {blobs}.id = reached.id OFFSET 0
    ) AS page, LATERAL {references:page.data} AS r
    WHERE reached.level > 0
)
SELECT id, (
    SELECT data FROM {blobs}
    WHERE thread = (SELECT key FROM thread) AND {blobs}.id = reached.id)
FROM (SELECT DISTINCT id FROM reached) AS reached
