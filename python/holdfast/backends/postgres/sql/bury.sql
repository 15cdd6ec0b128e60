-- Removes a few tombstones that have had their time. Who is about to begin such a thread anew is not
-- waited for.
DELETE FROM {threads} WHERE thread_id = ANY (ARRAY(
    SELECT thread_id FROM {threads}
    WHERE created_at IS NULL
        AND deleted_at <= statement_timestamp() - interval '{tombstone} seconds'
        AND NOT coalesce({leased}, false)
    ORDER BY deleted_at LIMIT 100 FOR UPDATE SKIP LOCKED))
