-- Begins to give all keys of a thread a longer or shorter lease, or none; what is new from now on
-- has it already. Where one is under way, or was cut short, that one is to be ended first: it is
-- never shorter than `leased`, and two that took turns in beginning would never end.
-- KEYS: meta
-- ARGV: token, ttl in milliseconds, or '' for none
-- Reply: the token under which it is done, and the fields of the hash; nothing where there is
--        nothing to do
local meta = KEYS[1]
local token, ttl = unpack(ARGV)
local thread = look(meta, {})
if is_dying(thread) or not thread.life then
  return {}
end
if thread.renewal then
  return { thread.renewing, redis.call('HKEYS', meta) }
end
local _, present = now()
local is_for_ever = ttl == '' or thread.is_persistent
-- A writer without a ttl may have come meanwhile: what does not expire has no lease.
if (is_for_ever and not thread.leased) or (not is_for_ever and not thread.expires) then
  return {}
end
local target = ''
if not is_for_ever then
  target = whole(math.max(present + 2 * ttl, thread.expires))
end
thread.is_open = is_for_ever or not thread.leased
thread.renewal = token .. ':' .. target .. ':' .. (thread.is_open and '1' or '0')
redis.call('HSET', meta, 'renewal', thread.renewal)
if not is_for_ever then
  -- True from now on: what has no lease lives longer.
  thread.leased = math.min(thread.leased or math.huge, tonumber(target))
  redis.call('HSET', meta, 'leased', whole(thread.leased))
end
settle_hash(meta, thread)
return { token, redis.call('HKEYS', meta) }
