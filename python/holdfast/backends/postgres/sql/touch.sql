-- Has a thread that expires, and has not, expire so many seconds from now. Whoever changes the thread
-- is not waited for: a change does the same.
-- $1 thread, $2 seconds
UPDATE {threads} SET expires_at = clock_timestamp() + $2::float8 * interval '1 second'
WHERE thread_id = (
    SELECT thread_id FROM {threads} WHERE thread_id = $1 AND expires_at > clock_timestamp()
    FOR NO KEY UPDATE SKIP LOCKED)
