-- Stores pending writes with their chunks, whole or not at all, after proving that every id
-- of the frontier is stored. A write of an index of 0 or more that exists stays as it is.
-- KEYS: meta, blobs, writes, checkpoint, threads
-- ARGV: operation, keep, epoch of a new thread, thread, namespace, id, number of writes,
--       length of the frontier, the frontier, pairs of field and write,
--       pairs of chunk id and bytes
-- Reply: the missing ids, or DYING
local meta, blobs, writes, checkpoint, threads = unpack(KEYS)
local operation, keep, epoch, thread_id, namespace, id = unpack(ARGV)
local thread = look(meta)
if is_dying(thread) then
  return DYING
end
if is_repeated(thread, operation) then
  return {}
end
local first = 9 + ARGV[8]
local missing = lacking(blobs, 9, first - 1)
if #missing > 0 then
  return missing
end
redis.call('HLEN', writes)
redis.call('ZSCORE', threads, thread_id)
local has_checkpoint = thread.life and redis.call('GETRANGE', checkpoint, 0, 3) == thread.life
local seconds, milliseconds = now()

local is_new = not thread.life
change(meta, thread, operation, keep, epoch, seconds, milliseconds)
store(blobs, first + 2 * ARGV[7])
if is_new then
  redis.call('UNLINK', writes)
end
for i = first, first + 2 * ARGV[7] - 2, 2 do
  local field = ARGV[i]
  local is_special = string.byte(field) >= 128 -- the sign of the index
  local held = not is_special and redis.call('HGET', writes, field)
  if not held or string.sub(held, 1, 4) ~= thread.life then
    redis.call('HSET', writes, field, thread.life .. ARGV[i + 1])
  end
end
if not has_checkpoint then
  redis.call('HSET', meta, orphan(namespace, id), '')
end
redis.call('ZADD', threads, milliseconds, thread_id)
return {}
