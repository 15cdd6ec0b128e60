-- Has a thread expire so many seconds from now, or never. Replies a row where it is there.
-- $1 thread, $2 seconds or null
UPDATE {threads}
SET expires_at = clock_timestamp() + $2::float8 * interval '1 second',
    is_persistent = $2::float8 IS NULL
WHERE thread_id = $1 AND created_at IS NOT NULL
    AND (expires_at IS NULL OR expires_at > clock_timestamp())
RETURNING true
