-- Finds out why a change of a thread, which is locked, did nothing: whether it was done before, or some
-- of its operations were, another holds the lease, the thread was deleted, or a checkpoint is gone that
-- it needs. Of one that has expired it removes what is left, unless the change is what it holds; it
-- removes a row that says nothing.
-- $1 thread, $2 token of the fence or null, $3 operations, $4 and $5 namespaces and checkpoints that
-- they change, $6 to $9 predecessors
WITH predecessor AS (
    SELECT * FROM unnest($6::text[], $7::text[], $8::bigint[], $9::bigint[])
        AS p (checkpoint_ns, checkpoint_id, made, is_parent)
), thread AS (
    SELECT key, coalesce(t.expires_at <= clock_timestamp(), false) AS is_expired, (
            SELECT count(*) FROM unnest($3::bytea[]) AS o (operation)
            WHERE position(o.operation IN t.operations || t.operations_before) > 0 OR EXISTS (
                SELECT FROM {checkpoints} AS c,
                    unnest($4::text[], $5::text[]) AS p (checkpoint_ns, checkpoint_id)
                WHERE c.thread_id = $1 AND c.checkpoint_ns = p.checkpoint_ns
                    AND c.checkpoint_id = p.checkpoint_id
                    AND position(o.operation IN c.operations) > 0
            ) OR EXISTS (
                SELECT FROM {writes} AS w
                WHERE w.thread = t.key AND w.checkpoint_id = ANY ($5::text[])
                    AND w.operation = o.operation)
        ) AS repeated,
        CASE WHEN $2::bigint IS NULL THEN coalesce(t.lease_until > clock_timestamp(), false)
            ELSE t.lease_until IS NULL OR t.lease_token <> $2::bigint END AS is_lost, {deleted} AS is_deleted,
        {orphaned} AS is_orphaned
    FROM {threads} AS t WHERE thread_id = $1
), doomed AS (
    SELECT key FROM thread WHERE is_expired AND repeated = 0
), checkpoints AS (
    DELETE FROM {checkpoints} USING doomed WHERE thread_id = $1
), writes AS (
    DELETE FROM {writes} USING doomed WHERE thread = key
), blobs AS (
    DELETE FROM {blobs} USING doomed WHERE thread = key
), ended AS (
    UPDATE {threads} SET epoch = epoch + 1, created_at = NULL, expires_at = NULL
    WHERE thread_id = $1 AND EXISTS (SELECT FROM doomed)
), tidied AS (
    DELETE FROM {threads}
    WHERE thread_id = $1 AND created_at IS NULL AND deleted_at IS NULL AND lease_token IS NULL
)
SELECT repeated = cardinality($3::bytea[]), repeated > 0, is_lost, is_deleted, is_orphaned FROM thread
