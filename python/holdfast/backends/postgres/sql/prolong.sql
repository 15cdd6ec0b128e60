-- Prolongs a lease, unless another has taken it, or it was given back or ended by a change of another.
-- Replies the token, if it was prolonged.
-- $1 thread, $2 token, $3 seconds
UPDATE {threads} SET lease_until = clock_timestamp() + $3::float8 * interval '1 second'
WHERE thread_id = $1 AND lease_token = $2::bigint AND lease_until IS NOT NULL
RETURNING lease_token
