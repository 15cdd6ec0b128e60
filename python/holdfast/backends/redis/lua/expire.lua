-- Has a thread expire, or never, whatever ttl those have who write to it later.
-- KEYS: meta, blobs, threads
-- ARGV: thread, ttl in milliseconds or ''
-- Reply: 0 where there is no such thread, 1 or SOON; DYING or RENEW
local meta, blobs, threads = unpack(KEYS)
local thread_id, ttl = unpack(ARGV)
local thread = look(meta, {})
if is_dying(thread) then
  return DYING
end
if not thread.life then
  return 0
end
thread.is_persistent = nil
if not plan(thread, ttl) then
  return RENEW
end
if thread.expires then
  redis.call('HSET', meta, 'expires', whole(thread.expires))
  redis.call('HDEL', meta, 'persistent')
else
  redis.call('HSET', meta, 'persistent', '1')
  redis.call('HDEL', meta, 'expires')
end
let_shared(threads, thread.expires, redis.call('PTTL', threads))
settle(meta, blobs, thread)
return thread.is_soon and SOON or 1
