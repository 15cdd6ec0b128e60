-- Gives a lease back. Needs no room.
-- KEYS: meta
-- ARGV: token
-- Reply: 0
local meta = KEYS[1]
local thread = look(meta, {})
if thread.token == ARGV[1] and thread.held then
  redis.call('HDEL', meta, 'lease_until', 'lease_by')
  thread.held = nil
  settle_hash(meta, thread)
end
return 0
