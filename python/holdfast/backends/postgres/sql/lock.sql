-- Lets no other change of a thread be under way until the transaction ends.
-- $1 thread
SELECT key FROM {threads} WHERE thread_id = $1 FOR NO KEY UPDATE
