-- Has a thread that expires do so later, because it was read. On a server that refuses to write
-- it stays as it is: the read is none the worse.
-- KEYS: meta, blobs, threads
-- ARGV: ttl in milliseconds
-- Reply: 0 or SOON; RENEW where it is done as far as the keys live
local meta, blobs, threads = unpack(KEYS)
local thread = look(meta, {})
if not thread.life or not thread.expires or is_dying(thread) then
  return 0
end
local leased = thread.leased
local is_done = plan(thread, ARGV[1])
if not is_done then
  thread.expires = leased
end
if not may('HSET', meta, 'expires', whole(thread.expires)) then
  return 0
end
let_shared(threads, thread.expires, redis.call('PTTL', threads))
settle(meta, blobs, thread)
if not is_done then
  return RENEW
end
return thread.is_soon and SOON or 0
