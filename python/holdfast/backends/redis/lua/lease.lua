-- Takes the lease of a thread, or prolongs it.
-- KEYS: meta, threads
-- ARGV: thread, milliseconds, token to prolong it or '', who asks
-- Reply: the token, or '' where another has it; milliseconds that it lasts
local meta, threads = unpack(KEYS)
local thread_id, milliseconds, token, who = unpack(ARGV)
local thread = look(meta, {}, 'lease_by')
local _, present = now()
redis.call('ZCARD', threads)
-- Who asks a second time, because no reply came, has it already.
local is_own = thread.held and thread.others[1] == who
if token ~= '' then
  if not thread.held or thread.token ~= token then
    return { '', 0 }
  end
elseif is_own then
  token = thread.token
elseif thread.held and thread.held > present then
  return { '', thread.held - present }
else
  -- A time, so that it is greater also when the last one is not known any more.
  token = whole(math.max((tonumber(thread.token) or 0) + 1, present))
end
thread.token, thread.held = token, present + milliseconds
redis.call('HSET', meta, 'lease_token', token, 'lease_until', whole(thread.held), 'lease_by', who)
local left = redis.call('PTTL', threads)
redis.call('ZADD', threads, 'NX', whole(present), thread_id)
let_shared(threads, thread.held + TOMBSTONE, left)
settle_hash(meta, thread)
return { token, tonumber(milliseconds) }
