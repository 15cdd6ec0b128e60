-- Removes all of a thread, which is locked.
-- $1 thread
WITH thread AS (
    DELETE FROM {threads} WHERE thread_id = $1 RETURNING key
), checkpoints AS (
    DELETE FROM {checkpoints} WHERE thread_id = $1
), writes AS (
    DELETE FROM {writes} USING thread WHERE thread = key
)
DELETE FROM {blobs} USING thread WHERE thread = key
