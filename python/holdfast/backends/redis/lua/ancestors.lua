-- Reads a checkpoint, or that with the greatest id, and its parents, with their writes.
-- KEYS: meta, index
-- ARGV: namespace, base of checkpoint keys, base of writes keys, limit; id if it is known
-- Reply: life, rows of id, record and writes
local meta, index = unpack(KEYS)
local namespace, checkpoints, all_writes, limit, id = unpack(ARGV, 1, 5)
local life, has_namespace = life_of(meta, namespace)
if not has_namespace then
  return { '', {} }
end
local rows, seen = {}, {}
id = id or redis.call('LINDEX', index, -1) or ''
while id ~= '' and not seen[id] and #rows < tonumber(limit) do
  seen[id] = true
  local stored = record_at(join(checkpoints, namespace, id), life)
  if not stored then
    break
  end
  rows[#rows + 1] = { id, stored, redis.call('HGETALL', join(all_writes, namespace, id)) }
  id = parent_of(stored)
end
return { life, rows }
