-- The row of a thread that a change begins.
-- $1 thread, $2 epoch, $3 seconds until it expires or null
$1, $2::bigint, statement_timestamp(), statement_timestamp(),
floor(date_part('epoch', statement_timestamp()) / 60)::integer,
statement_timestamp() + $3::float8 * interval '1 second'
