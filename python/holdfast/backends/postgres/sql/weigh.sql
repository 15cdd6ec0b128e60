-- How many checkpoints a thread has, the bytes of its records and chunks, and its pending writes.
-- $1 thread
WITH thread AS (
    SELECT key FROM {threads} WHERE thread_id = $1
)
SELECT NULL AS checkpoint_ns, NULL AS checkpoint_id, NULL::bigint AS number, NULL AS task_id,
    NULL::integer AS idx, NULL::bytea AS data, count(*), coalesce(sum(octet_length(record)), 0)::bigint
FROM {checkpoints} WHERE thread_id = $1
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, NULL, 0, coalesce(sum(octet_length(data)), 0)::bigint
FROM {blobs} WHERE thread = (SELECT key FROM thread)
UNION ALL
SELECT checkpoint_ns, checkpoint_id, number, task_id, idx, data, 0, 0
FROM {writes} WHERE thread = (SELECT key FROM thread)
