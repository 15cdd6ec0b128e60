-- Reads one checkpoint, or that with the greatest id, with its pending writes and all the
-- pages below them, as of one moment. Leaves are left to HMGET: they never pass through Lua.
-- KEYS: meta, blobs, index; checkpoint and writes if the id is known
-- ARGV: namespace, base of checkpoint keys, base of writes keys, number of pages that the
--       client has, these, which are left out with all below them; id if it is known
-- Reply: nil, or life, id, record (nil if it is lost), writes, pages
local meta, blobs, index, checkpoint, writes = unpack(KEYS)
local namespace, checkpoints, all_writes, count = unpack(ARGV, 1, 4)
local id = ARGV[5 + count]
local life, has_namespace = life_of(meta, namespace)
if not has_namespace then
  return false
end
if not id then
  id = redis.call('LINDEX', index, -1)
  if not id then
    return false
  end
  checkpoint = join(checkpoints, namespace, id)
  writes = join(all_writes, namespace, id)
end
local stored = record_at(checkpoint, life)
if not stored then
  -- Asked for by its id it may never have been there; the index tells.
  if redis.call('LINDEX', index, position(index, id)) ~= id then
    return false
  end
  return { life, id }
end
local pending = redis.call('HGETALL', writes)
local known, front = {}, {}
for i = 5, 4 + count do
  known[ARGV[i]] = true
end
local _, at = parent_of(stored)
add_pages(stored, at, known, front)
add_pages_of_writes(pending, known, front)
return { life, id, stored, pending, pages(blobs, known, front) }
