-- A page of history with its pending writes, from the greatest id down.
-- {conditions} and {limit} are over the values that the caller gives
WITH page AS MATERIALIZED (
    SELECT thread_id, checkpoint_ns, checkpoint_id, record FROM {checkpoints} AS c
    WHERE {conditions}
    ORDER BY checkpoint_id DESC, thread_id DESC, checkpoint_ns DESC LIMIT {limit}
)
SELECT 'record', thread_id, checkpoint_ns, checkpoint_id, NULL::bigint, NULL::text, NULL::integer,
    record
FROM page
UNION ALL
SELECT 'write', page.thread_id, page.checkpoint_ns, page.checkpoint_id, w.number, w.task_id, w.idx,
    w.data
FROM page, LATERAL (
    SELECT number, task_id, idx, data FROM {writes}
    WHERE thread = (SELECT key FROM {threads} WHERE {threads}.thread_id = page.thread_id)
        AND {writes}.checkpoint_ns = page.checkpoint_ns
        AND {writes}.checkpoint_id = page.checkpoint_id OFFSET 0
) AS w
