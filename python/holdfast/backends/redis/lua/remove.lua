-- Removes checkpoints with their writes, and replaces records by ones without a parent while
-- they are as they were read; all of it, or nothing when the epoch has moved. Works also
-- when the server is out of memory: what needs room is then left as it is.
-- KEYS: meta, blobs, threads
-- ARGV: operation, epoch or '', thread, base of indexes, base of checkpoint keys,
--       base of writes keys, base of runs, number of checkpoints,
--       pairs of namespace and id, fours of namespace, id, old and new record
-- Reply: the epoch thereafter, '' where nothing is left; MOVED or DYING
local meta, blobs, threads = unpack(KEYS)
local operation, epoch, thread_id, indexes, checkpoints, all_writes, runs = unpack(ARGV, 1, 7)
local thread = look(meta, { operation })
if is_dying(thread) then
  return DYING
end
if not thread.life then
  return ''
end
if is_repeated(thread, operation) then
  return thread.epoch
end
if epoch ~= '' and epoch ~= thread.epoch then
  return MOVED
end

-- Without room the epoch stays, which the next census finds as well.
may('HINCRBY', meta, 'epoch', 1)
may('HSET', meta, remember(thread, operation, (now())))

local last = 8 + 2 * ARGV[8]
for i = 9, last, 2 do
  local namespace, id = ARGV[i], ARGV[i + 1]
  redis.call('UNLINK', join(checkpoints, namespace, id), join(all_writes, namespace, id))
  redis.call('HDEL', meta, orphan(namespace, id))
  local index = join(indexes, namespace)
  if redis.call('LREM', index, 1, id) == 1 and redis.call('EXISTS', index) == 0 then
    redis.call('HDEL', meta, 'ns:' .. namespace)
  end
end
for i = last + 1, #ARGV, 4 do
  local key = join(checkpoints, ARGV[i], ARGV[i + 1])
  local stored = redis.call('GET', key)
  if stored then
    local _, at = parent_of(stored)
    if string.sub(stored, at) == ARGV[i + 2] then
      may('SET', key, thread.life .. '\0\0' .. ARGV[i + 3], 'KEEPTTL')
    end
  end
end

for _, field in ipairs(redis.call('HKEYS', meta)) do
  local kind = string.sub(field, 1, 2)
  if kind == 'ns' or kind == 'w:' then
    return redis.call('HGET', meta, 'epoch')
  end
end
remove_thread(meta, blobs, threads, thread_id, runs)
return ''
