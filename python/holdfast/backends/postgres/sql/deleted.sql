-- Whether a thread's row {threads} AS t says that the thread was deleted under a change that follows
-- the checkpoints `predecessor`. What is stored is seen as it was when the statement began, the row
-- as it is: where it has changed meanwhile, its epoch is another, and nothing is believed.
-- $1 thread
(coalesce(t.deleted_at > clock_timestamp() - interval '{tombstone} seconds', false) AND EXISTS (
    SELECT FROM predecessor AS p
    WHERE t.epoch IS DISTINCT FROM (SELECT epoch FROM {threads} WHERE thread_id = $1)
        OR (p.made <= {milliseconds:t.deleted_at} OR p.is_parent > 0 AND t.created_at IS NULL)
        AND (t.created_at IS NULL OR NOT EXISTS (
            SELECT FROM {checkpoints} AS c
            WHERE c.thread_id = $1 AND c.checkpoint_ns = p.checkpoint_ns
                AND c.checkpoint_id = p.checkpoint_id OFFSET 0))))
