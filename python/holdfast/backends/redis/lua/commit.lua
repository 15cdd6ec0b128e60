-- Stores a checkpoint whole or not at all: its chunks, the proof that every id of its
-- frontier is stored, its record, its place in the index, the epoch, and when the thread
-- expires, in one step. A repeated operation changes nothing.
-- KEYS: meta, blobs, index, checkpoint, threads, run if there is one
-- ARGV: operation, keep, ttl in milliseconds or '', fence, what it follows, thread, namespace, id,
--       run, record, length of the frontier, the frontier, pairs of chunk id and bytes
-- Reply: the missing ids, or SOON; DYING, DELETED, ORPHANED, FENCED or RENEW
local meta, blobs, index, checkpoint, threads, run = unpack(KEYS)
local operation, keep, ttl, fence, follows, thread_id, namespace, id, run_id, record =
  unpack(ARGV, 1, 10)
local late = orphan(namespace, id)
local thread = look(meta, { operation }, 'ns:' .. namespace, late, 'run:' .. run_id)
local has_namespace, has_late_writes, has_run = unpack(thread.others)
if is_repeated(thread, operation) then
  return {}
end
if is_dying(thread) then
  return DYING
end
if is_fenced(thread, fence) then
  return FENCED
end
local checkpoints = string.sub(checkpoint, 1, #checkpoint - #join('', namespace, id))
if thread.deleted and is_late_after(thread, follows, checkpoints) then
  return DELETED
end
if is_orphaned(thread, follows, checkpoints) then
  return ORPHANED
end
local missing = lacking(blobs, 12, 11 + ARGV[11])
if #missing > 0 then
  return missing
end
if not plan(thread, ttl) then
  return RENEW
end
local last = redis.call('LINDEX', index, -1)
redis.call('STRLEN', checkpoint)
local run_count
if run and not has_run then
  run_count = redis.call('SCARD', run)
end
hold(thread, fence)

register(threads, thread_id, meta, thread)
local fields = {}
if not has_namespace then
  fields = { 'ns:' .. namespace, '' }
  redis.call('UNLINK', index)
  last = false
end
if run_count then
  fields[#fields + 1] = 'run:' .. run_id
  fields[#fields + 1] = ''
  add_run(run, thread_id, thread.lease, run_count)
end
change(meta, thread, { operation }, keep, unpack(fields))
store(blobs, 12 + ARGV[11], #ARGV)
insert(index, id, last)
if has_late_writes then
  redis.call('HDEL', meta, late)
end
if thread.lease then
  redis.call('SET', checkpoint, thread.life .. record, 'PXAT', whole(thread.lease))
  if not last then
    let(index, thread.lease)
  end
else
  redis.call('SET', checkpoint, thread.life .. record)
end
settle(meta, blobs, thread)
return thread.is_soon and SOON or {}
