-- Whether a checkpoint is not stored that a change needs: of the checkpoints `predecessor` one whose
-- is_parent is 2. What is stored is believed as in deleted.sql.
-- $1 thread
EXISTS (
    SELECT FROM predecessor AS p
    WHERE p.is_parent > 1 AND (
        t.epoch IS DISTINCT FROM (SELECT epoch FROM {threads} WHERE thread_id = $1)
        OR NOT EXISTS (
            SELECT FROM {checkpoints} AS c
            WHERE c.thread_id = $1 AND c.checkpoint_ns = p.checkpoint_ns
                AND c.checkpoint_id = p.checkpoint_id OFFSET 0)))
