-- The pending writes of checkpoints.
-- $1 thread, $2 namespaces, $3 checkpoints
SELECT asked.checkpoint_ns, asked.checkpoint_id, w.number, w.task_id, w.idx, w.data
FROM unnest($2::text[], $3::text[]) AS asked (checkpoint_ns, checkpoint_id), LATERAL (
    SELECT number, task_id, idx, data FROM {writes}
    WHERE thread = (SELECT key FROM {threads} WHERE thread_id = $1 AND {unexpired})
        AND {writes}.checkpoint_ns = asked.checkpoint_ns
        AND {writes}.checkpoint_id = asked.checkpoint_id OFFSET 0
) AS w
