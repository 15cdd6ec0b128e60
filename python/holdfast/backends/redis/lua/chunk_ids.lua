-- Reads some ids of a thread's chunks with the bytes that tell their level.
-- KEYS: blobs
-- ARGV: cursor of HSCAN, about how many
-- Reply: next cursor, threes of id, first bytes and size
local scanned = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
local found, pairs_of = {}, scanned[2]
for i = 1, #pairs_of, 2 do
  local stored = pairs_of[i + 1]
  found[#found + 1] = pairs_of[i]
  found[#found + 1] = string.sub(stored, 1, 2)
  found[#found + 1] = #stored
end
return { scanned[1], found }
