-- Removes chunks, unless the epoch has moved since they were marked as garbage.
-- KEYS: meta, blobs
-- ARGV: epoch, ids
-- Reply: 0, MOVED or DYING
local meta, blobs = unpack(KEYS)
local thread = look(meta)
if is_dying(thread) then
  return DYING
end
if not thread.life then
  return 0
end
if thread.epoch ~= ARGV[1] then
  return MOVED
end
for i = 2, #ARGV, UNPACKED do
  redis.call('HDEL', blobs, unpack(ARGV, i, math.min(i + UNPACKED - 1, #ARGV)))
end
return 0
