-- Adds operations to those that a thread remembers, for {keep} seconds at least and twice that at
-- most.
operations = {expression} || CASE
    WHEN t.operations_since > now() - interval '{keep} seconds' THEN t.operations ELSE '' END,
operations_before = CASE
    WHEN t.operations_since > now() - interval '{keep} seconds' THEN t.operations_before
    ELSE t.operations END,
operations_since = CASE
    WHEN t.operations_since > now() - interval '{keep} seconds' THEN t.operations_since
    ELSE now() END
