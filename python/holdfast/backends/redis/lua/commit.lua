-- Stores a checkpoint whole or not at all: its chunks, the proof that every id of its
-- frontier is stored, its record, its place in the index, and the epoch, in one step.
-- A repeated operation changes nothing.
-- KEYS: meta, blobs, index, checkpoint, threads, run if there is one
-- ARGV: operation, keep, thread, namespace, id, run, record,
--       length of the frontier, the frontier, pairs of chunk id and bytes
-- Reply: the missing ids, or DYING
local meta, blobs, index, checkpoint, threads, run = unpack(KEYS)
local operation, keep, thread_id, namespace, id, run_id, record = unpack(ARGV, 1, 7)
local late = orphan(namespace, id)
local thread = look(meta, { operation }, 'ns:' .. namespace, late, 'run:' .. run_id)
local has_namespace, has_late_writes, has_run = unpack(thread.others)
if is_dying(thread) then
  return DYING
end
if is_repeated(thread, operation) then
  return {}
end
local missing = lacking(blobs, 9, 8 + ARGV[8])
if #missing > 0 then
  return missing
end
local last = redis.call('LINDEX', index, -1)
redis.call('STRLEN', checkpoint)
if run and not has_run then
  redis.call('SCARD', run)
end
local seconds, milliseconds = now()

redis.call('ZADD', threads, milliseconds, thread_id)
local fields = {}
if not has_namespace then
  fields = { 'ns:' .. namespace, '' }
  redis.call('UNLINK', index)
  last = false
end
if run and not has_run then
  fields[#fields + 1] = 'run:' .. run_id
  fields[#fields + 1] = ''
  redis.call('SADD', run, thread_id)
end
change(meta, thread, { operation }, keep, seconds, milliseconds, unpack(fields))
store(blobs, 9 + ARGV[8], #ARGV)
insert(index, id, last)
if has_late_writes then
  redis.call('HDEL', meta, late)
end
redis.call('SET', checkpoint, thread.life .. record)
return {}
