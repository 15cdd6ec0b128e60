-- How many checkpoints a thread has, and the bytes of all that is stored of it; of its log of pending
-- writes those that are read.
-- $1 thread
SELECT sum(checkpoints)::bigint, sum(bytes)::bigint
FROM (
    SELECT count(*), coalesce(sum(octet_length(record)), 0)
    FROM {checkpoints} WHERE thread_id = $1
    UNION ALL
    SELECT 0, coalesce(sum(octet_length(data)), 0)
    FROM (
        SELECT DISTINCT ON (checkpoint_ns, checkpoint_id, task_id, idx) data
        FROM {writes} WHERE thread = (SELECT key FROM {threads} WHERE thread_id = $1)
        ORDER BY checkpoint_ns, checkpoint_id, task_id, idx,
            CASE WHEN idx < 0 THEN -number ELSE number END
    ) AS pending
    UNION ALL
    SELECT 0, coalesce(sum(octet_length(data)), 0)
    FROM {blobs} WHERE thread = (SELECT key FROM {threads} WHERE thread_id = $1)
) AS part (checkpoints, bytes)
