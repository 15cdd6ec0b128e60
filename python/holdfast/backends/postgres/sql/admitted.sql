-- Whether a change may be made as its thread's row {threads} AS t is now: it has not expired, and
-- nobody else holds its lease.
(t.expires_at IS NULL OR t.expires_at > clock_timestamp()) AND ({held})
