-- Reads some ids of a thread's chunks with the bytes that tell their level.
-- KEYS: blobs
-- ARGV: cursor of HSCAN, about how many
-- Reply: next cursor, pairs of id and first bytes
local scanned = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
local found = scanned[2]
for i = 2, #found, 2 do
  found[i] = string.sub(found[i], 1, 2)
end
return { scanned[1], found }
