-- Stores leaves ahead of the commit that will refer to them. Leaves alone: they refer to
-- nothing, so that what a stored page lists is stored. Raises the epoch, so that no sweep
-- removes them for a mark made before.
-- KEYS: meta, blobs, threads
-- ARGV: operation, keep, thread, pairs of chunk id and bytes
-- Reply: 0, or DYING
local meta, blobs, threads = unpack(KEYS)
local operation, keep, thread_id = unpack(ARGV, 1, 3)
local thread = look(meta, { operation })
if is_dying(thread) then
  return DYING
end
redis.call('HLEN', blobs)
redis.call('ZCARD', threads)
local seconds, milliseconds = now()
change(meta, thread, { operation }, keep, seconds, milliseconds)
store(blobs, 4, #ARGV)
redis.call('ZADD', threads, milliseconds, thread_id)
return 0
