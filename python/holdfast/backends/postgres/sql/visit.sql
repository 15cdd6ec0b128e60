-- All threads in the order of their ids, with what a sweep wants to know.
-- {condition} and {limit} are over the values that the caller gives
SELECT thread_id, CASE WHEN created_at IS NULL THEN 0 ELSE epoch END,
    {milliseconds:CASE WHEN created_at IS NULL THEN coalesce(deleted_at, updated_at)
        ELSE updated_at END},
    coalesce(expires_at <= statement_timestamp(), false), created_at IS NULL,
    coalesce(lease_until > statement_timestamp(), false)
FROM {threads}
WHERE {condition}
ORDER BY thread_id LIMIT {limit}
