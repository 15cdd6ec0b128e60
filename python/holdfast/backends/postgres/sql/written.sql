-- Has a thread, which is locked, remember the operations of pending writes that were stored in this
-- transaction: it has changed the thread's row then.
-- $1 thread, $2 operations, $3 their checkpoints
UPDATE {threads} AS t SET {remember:stored.operations}
FROM (
    SELECT w.thread, string_agg(DISTINCT w.operation, '') AS operations FROM {writes} AS w
    WHERE w.thread = (SELECT key FROM {threads} WHERE thread_id = $1)
        AND w.checkpoint_id = ANY ($3::text[]) AND w.operation = ANY ($2::bytea[])
    GROUP BY w.thread
) AS stored
WHERE t.thread_id = $1
    AND t.xmin::text::bigint = txid_current() & 4294967295 -- of 64 bits, a row has the lower half
