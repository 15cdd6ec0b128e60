-- Takes the lease of a thread, which need not be there, unless another holds it; again by the same
-- operation, it is the same lease. Replies the token, if it was taken.
-- $1 thread, $2 epoch of a new thread, $3 operation, $4 seconds
INSERT INTO {threads} AS t (thread_id, epoch, created_at, lease_token, lease_operation, lease_until)
SELECT $1, $2::bigint, NULL, {microseconds:at}, $3::bytea, at + $4::float8 * interval '1 second'
FROM clock_timestamp() AS at
ON CONFLICT (thread_id) DO UPDATE SET
    -- A time, so that it is greater also when the last one is not known any more; in microseconds,
    -- of which each round trip takes many.
    lease_token = CASE WHEN t.lease_operation = $3::bytea THEN t.lease_token ELSE
        greatest(t.lease_token + 1, {microseconds:clock_timestamp()}) END,
    lease_operation = $3::bytea,
    lease_until = clock_timestamp() + $4::float8 * interval '1 second'
WHERE t.lease_until IS NULL OR t.lease_until <= clock_timestamp() OR t.lease_operation = $3::bytea
RETURNING lease_token
