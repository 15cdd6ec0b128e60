-- What a change writes to its thread's row, whether it begins the thread anew or not. The time is that
-- of the moment: what stands in front of it may have waited for the row. What the fence says of the
-- lease: {leased_until}
-- $3 seconds until the thread expires or null
epoch = t.epoch + 1,
(updated_at, updated_minute, expires_at) = (
    SELECT at, floor(date_part('epoch', at) / 60)::integer,
        CASE WHEN NOT t.is_persistent THEN at + $3::float8 * interval '1 second' END
    FROM clock_timestamp() AS at),
created_at = coalesce(t.created_at, clock_timestamp()),
lease_until = {leased_until}
