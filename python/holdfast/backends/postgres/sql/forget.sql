-- Removes all of a thread, which is locked, unless it lives and its epoch has moved, or somebody holds
-- the lease and only tidies up (with an epoch, without a tombstone), or this was done before. What stays of its row is the tombstone, if one is wanted or the time of an earlier one is
-- not up, the operations by which its checkpoints came shortly before, so that none of them is done
-- again, and the lease. Replies whether it was done, now or before.
-- $1 thread, $2 operation, $3 epoch or null, $4 whether a tombstone stays
WITH thread AS (
    SELECT key, position($2::bytea IN operations || operations_before) > 0 AS is_done,
        (created_at IS NULL OR epoch = coalesce($3::bigint, epoch)) AND NOT ($3::bigint IS NOT NULL
            AND NOT $4::boolean AND coalesce(lease_until > clock_timestamp(), false)) AS fits,
        $4::boolean OR coalesce({leased}, false) OR coalesce(
            deleted_at > statement_timestamp() - interval '{tombstone} seconds', false) AS stays
    FROM {threads} WHERE thread_id = $1
), doomed AS (
    SELECT key, stays FROM thread WHERE fits AND NOT is_done
), recent AS (
    SELECT string_agg(operations, '') AS operations FROM {checkpoints}
    WHERE thread_id = $1
        -- Of one that was put again, created_at says when that was first.
        AND (created_at > statement_timestamp() - interval '{keep} seconds'
            OR length(operations) > 8)
), checkpoints AS (
    DELETE FROM {checkpoints} USING doomed WHERE thread_id = $1
), writes AS (
    DELETE FROM {writes} USING doomed WHERE thread = doomed.key
), blobs AS (
    DELETE FROM {blobs} USING doomed WHERE thread = doomed.key
), removed AS (
    DELETE FROM {threads} USING doomed WHERE thread_id = $1 AND NOT stays
), kept AS (
    UPDATE {threads} AS t SET epoch = epoch + 1, created_at = NULL, expires_at = NULL,
        is_persistent = false, deleted_at = CASE WHEN $4::boolean THEN clock_timestamp() ELSE t.deleted_at END,
        {remember:$2::bytea || coalesce((SELECT operations FROM recent), '')}
    FROM doomed WHERE thread_id = $1 AND stays
)
SELECT is_done OR fits FROM thread
