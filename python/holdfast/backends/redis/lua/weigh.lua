-- Sums the bytes of some records and pending writes, without what is put in front of them.
-- KEYS: meta, pairs of checkpoint and writes
-- Reply: bytes
local life = redis.call('HGET', KEYS[1], 'life')
local sum = 0
for at = 2, #KEYS, 2 do
  local stored = redis.call('GETRANGE', KEYS[at], 0, 5)
  if life and string.sub(stored, 1, 4) == life then
    local high, low = string.byte(stored, 5, 6)
    sum = sum + redis.call('STRLEN', KEYS[at]) - 6 - (high or 0) * 256 - (low or 0)
  end
  local pending = redis.call('HGETALL', KEYS[at + 1])
  for i = 2, #pending, 2 do
    if string.sub(pending[i], 1, 4) == life then
      sum = sum + #pending[i] - 4
    end
  end
end
return sum
