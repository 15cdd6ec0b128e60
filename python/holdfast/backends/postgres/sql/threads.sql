-- Threads that have checkpoints, last written first, with their namespaces, and the latest checkpoint
-- of the first of these with its pending writes, and what its record refers to that is not a value
-- (level 64, MANIFEST, and above). An index leads to the last minutes; within a minute
-- all are sorted.
-- {conditions} and {limit} are over the values that the caller gives
WITH page AS MATERIALIZED (
    SELECT thread_id, key, epoch, created_at, {milliseconds:updated_at} AS updated, expires_at
    FROM {threads} AS t
    WHERE created_at IS NOT NULL AND {unexpired} AND {conditions} AND EXISTS (
        -- OFFSET: a look at the index for each, whatever the planner thinks of their number.
        SELECT FROM {checkpoints} AS c WHERE c.thread_id = t.thread_id OFFSET 0)
    ORDER BY updated_minute DESC, updated DESC, thread_id DESC LIMIT {limit}
), space AS MATERIALIZED (
    SELECT page.thread_id, page.key, c.checkpoint_ns, c.checkpoints
    FROM page, LATERAL (
        SELECT checkpoint_ns, count(*) AS checkpoints FROM {checkpoints}
        WHERE {checkpoints}.thread_id = page.thread_id GROUP BY checkpoint_ns OFFSET 0) AS c
), head AS MATERIALIZED (
    SELECT first.thread_id, first.key, first.checkpoint_ns, c.checkpoint_id, c.record
    FROM (
        SELECT thread_id, key, min(checkpoint_ns) AS checkpoint_ns FROM space
        GROUP BY thread_id, key
    ) AS first, LATERAL (
        SELECT checkpoint_id, record FROM {checkpoints}
        WHERE {checkpoints}.thread_id = first.thread_id
            AND {checkpoints}.checkpoint_ns = first.checkpoint_ns
        ORDER BY checkpoint_id DESC LIMIT 1) AS c
)
SELECT 'thread', thread_id, NULL::text, epoch, {milliseconds:created_at}, updated,
    {milliseconds:expires_at}, NULL::text, NULL::integer, NULL::bytea
FROM page
UNION ALL
SELECT 'space', thread_id, checkpoint_ns, checkpoints, NULL, NULL, NULL, NULL, NULL, NULL FROM space
UNION ALL
SELECT 'record', thread_id, checkpoint_ns, NULL, NULL, NULL, NULL, checkpoint_id, NULL, record
FROM head
UNION ALL
SELECT 'write', head.thread_id, NULL, w.number, NULL, NULL, NULL, w.task_id, w.idx, w.data
FROM head, LATERAL (
    SELECT number, task_id, idx, data FROM {writes}
    WHERE thread = head.key AND {writes}.checkpoint_ns = head.checkpoint_ns
        AND {writes}.checkpoint_id = head.checkpoint_id OFFSET 0
) AS w
UNION ALL
SELECT 'chunk', head.thread_id, NULL, NULL, NULL, NULL, NULL, encode(r.id, 'hex'), NULL, page.data
FROM head, LATERAL {references:head.record} AS r, LATERAL (
    SELECT data FROM {blobs} WHERE thread = head.key AND {blobs}.id = r.id OFFSET 0
) AS page
WHERE r.level >= 64
