-- Removes chunks, unless the epoch has moved since they were marked as garbage.
-- KEYS: meta, blobs
-- ARGV: epoch, ids
-- Reply: 0; MOVED or DYING
local meta, blobs = unpack(KEYS)
local life, epoch, expires = unpack(redis.call('HMGET', meta, 'life', 'epoch', 'expires'))
if not epoch or is_past(expires) then
  return 0
end
if not life then
  return DYING
end
if epoch ~= ARGV[1] then
  return MOVED
end
for i = 2, #ARGV, UNPACKED do
  redis.call('HDEL', blobs, unpack(ARGV, i, math.min(i + UNPACKED - 1, #ARGV)))
end
return 0
