-- What a stored object refers to, read off the front of its bytes {expression}: the layout is that of
-- rust/store/chunk.rs. Of bytes that are damaged only what they hold is read. An array instead of
-- generate_series, and conditions that are always so: they tell the planner, which would count with
-- a thousand, that there are few.
(SELECT level, id FROM (
     SELECT get_byte({expression}, 17 * n::integer - 13) AS level,
         substring({expression} FROM 17 * n::integer - 11 FOR 16) AS id
     FROM unnest(array_fill(0, ARRAY[CASE
         WHEN length({expression}) < 4 OR get_byte({expression}, 0) & 4 = 0 THEN 0
         ELSE least(get_byte({expression}, 2) * 256 + get_byte({expression}, 3), (length({expression}) - 4) / 17)
     END])) WITH ORDINALITY AS numbers (zero, n)) AS reference
 WHERE length(id) = 16 AND level BETWEEN 0 AND 255)
