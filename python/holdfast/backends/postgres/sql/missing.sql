-- Of chunks those that are not there.
-- $1 thread, $2 chunk ids
SELECT DISTINCT id FROM unnest($2::bytea[]) AS required (id)
WHERE NOT EXISTS (
    SELECT FROM {blobs}
    WHERE thread = (SELECT key FROM {threads} WHERE thread_id = $1 AND {unexpired})
        AND {blobs}.id = required.id)
