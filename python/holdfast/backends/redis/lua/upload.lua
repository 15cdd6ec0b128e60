-- Stores leaves ahead of the commit that will refer to them. Leaves alone: they refer to
-- nothing, so that what a stored page lists is stored. Raises the epoch, so that no sweep
-- removes them for a mark made before. Refused where the commit would be: it would begin the
-- thread anew.
-- KEYS: meta, blobs, threads
-- ARGV: operation, keep, ttl in milliseconds or '', fence, what the commit follows, thread, base
--       of checkpoint keys, pairs of chunk id and bytes
-- Reply: 0 or SOON; DYING, DELETED, ORPHANED, FENCED or RENEW
local meta, blobs, threads = unpack(KEYS)
local operation, keep, ttl, fence, follows, thread_id, checkpoints = unpack(ARGV, 1, 7)
local thread = look(meta, { operation })
if is_dying(thread) then
  return DYING
end
if is_fenced(thread, fence) then
  return FENCED
end
if is_late_after(thread, follows, checkpoints) then
  return DELETED
end
if is_orphaned(thread, follows, checkpoints) then
  return ORPHANED
end
if not plan(thread, ttl) then
  return RENEW
end
redis.call('HLEN', blobs)
redis.call('ZCARD', threads)
hold(thread, fence)

register(threads, thread_id, meta, thread)
change(meta, thread, { operation }, keep)
store(blobs, 8, #ARGV)
settle(meta, blobs, thread)
return thread.is_soon and SOON or 0
