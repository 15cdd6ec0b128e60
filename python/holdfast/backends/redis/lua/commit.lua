-- Stores a checkpoint whole or not at all: its chunks, the proof that every id of its
-- frontier is stored, its record, its place in the index, and the epoch, in one step.
-- A repeated operation changes nothing.
-- KEYS: meta, blobs, index, checkpoint, threads, run if there is one
-- ARGV: operation, keep, epoch of a new thread, thread, namespace, id, run, record,
--       length of the frontier, the frontier, pairs of chunk id and bytes
-- Reply: the missing ids, or DYING
local meta, blobs, index, checkpoint, threads, run = unpack(KEYS)
local operation, keep, epoch, thread_id, namespace, id, run_id, record = unpack(ARGV)
local thread = look(meta)
if is_dying(thread) then
  return DYING
end
if is_repeated(thread, operation) then
  return {}
end
local missing = lacking(blobs, 10, 9 + ARGV[9])
if #missing > 0 then
  return missing
end
local held = redis.call('GETRANGE', checkpoint, 0, 3)
local last = redis.call('LINDEX', index, -1)
redis.call('ZSCORE', threads, thread_id)
if run then
  redis.call('SCARD', run)
end
local is_replaced = thread.life and held == thread.life
local seconds, milliseconds = now()

change(meta, thread, operation, keep, epoch, seconds, milliseconds)
store(blobs, 10 + ARGV[9])
if not is_replaced then
  if redis.call('HSETNX', meta, 'ns:' .. namespace, '') == 1 then
    redis.call('UNLINK', index)
    last = false
  end
  if not last or less(last, id) then
    redis.call('RPUSH', index, id)
  else
    local after = redis.call('LINDEX', index, position(index, id))
    if after ~= id then
      redis.call('LINSERT', index, 'BEFORE', after, id)
    end
  end
  redis.call('HDEL', meta, orphan(namespace, id))
end
redis.call('SET', checkpoint, thread.life .. record)
redis.call('ZADD', threads, milliseconds, thread_id)
if run and redis.call('HSETNX', meta, 'run:' .. run_id, '') == 1 then
  redis.call('SADD', run, thread_id)
end
return {}
