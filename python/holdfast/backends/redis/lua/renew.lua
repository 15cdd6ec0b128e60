-- Gives some keys of a thread the lease of a renewal, and ends it behind the last; nothing when
-- another has ended it.
-- KEYS: meta, the keys; of runs first
-- ARGV: token, number of runs, '1' behind the last
-- Reply: 1, or 0 when it has ended
local meta = KEYS[1]
local token, runs, is_last = unpack(ARGV)
local thread = look(meta, {})
if not thread.life or thread.renewing ~= token then
  return 0
end
for at = 2, #KEYS do
  if at - 1 > tonumber(runs) then
    let(KEYS[at], thread.target)
  else
    local left = redis.call('PTTL', KEYS[at])
    if thread.target and left == -1 and redis.call('SCARD', KEYS[at]) == 1 then
      left = -2 -- no other thread is in it
    end
    let_shared(KEYS[at], thread.target, left)
  end
end
if is_last == '1' then
  thread.leased, thread.is_open = thread.target, false
  redis.call('HDEL', meta, 'renewal')
  if thread.target then
    redis.call('HSET', meta, 'leased', whole(thread.target))
  else
    redis.call('HDEL', meta, 'leased')
  end
  settle_hash(meta, thread)
end
return 1
