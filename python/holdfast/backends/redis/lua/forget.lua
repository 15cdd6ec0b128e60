-- Removes a thread, at most `limit` checkpoints at a time so that nobody waits for long. The
-- thread is gone for everybody with the first call; the others remove what is left of it.
-- Needs no room: it works on a server that is out of memory.
-- KEYS: meta, blobs, threads
-- ARGV: thread, base of indexes, base of checkpoint keys, base of writes keys, base of runs,
--       limit, and to begin: operation, keep, epoch or '', '1' to leave a tombstone
-- Reply: 1 when something is left, else 0; MOVED
local meta, blobs, threads = unpack(KEYS)
local thread_id, indexes, checkpoints, all_writes, runs, limit, operation, keep, epoch, leaves =
  unpack(ARGV, 1, 10)
local left = tonumber(limit)
local thread = look(meta, { operation })
local seconds, present = now()
redis.call('ZCARD', threads)
if operation and not is_repeated(thread, operation) then
  if epoch ~= '' and thread.life and thread.epoch ~= epoch then
    return MOVED
  end
  if epoch ~= '' and leaves ~= '1' and is_fenced(thread, '') then
    return MOVED
  end
  redis.call('HDEL', meta, 'life')
  thread.life = nil
  if leaves == '1' then
    thread.keep = math.max(thread.keep, keep)
    local _, operations = remember(thread, operation, seconds)
    local until_then = { 'deleted', whole(present), 'keep', thread.keep, part_of(operation), operations }
    if may('HSET', meta, unpack(until_then)) then
      thread.deleted = present
      local kept = redis.call('PTTL', threads)
      redis.call('ZADD', threads, whole(present), thread_id)
      let_shared(threads, present + TOMBSTONE, kept)
    end
  end
  -- While it is being removed nothing else names its keys.
  settle_hash(meta, thread)
elseif thread.life and not is_past(thread.expires) then
  -- It has begun anew since this was done, or since another client has finished it.
  return 0
else
  redis.call('HDEL', meta, 'life')
end
for _, field in ipairs(redis.call('HKEYS', meta)) do
  if string.sub(field, 1, 3) == 'ns:' then
    local namespace = string.sub(field, 4)
    local index = join(indexes, namespace)
    while left > 0 do
      local ids = redis.call('LRANGE', index, 0, math.min(left, UNPACKED) - 1)
      if #ids == 0 then
        redis.call('HDEL', meta, field)
        break
      end
      for _, id in ipairs(ids) do
        redis.call('UNLINK', join(checkpoints, namespace, id), join(all_writes, namespace, id))
      end
      redis.call('LTRIM', index, #ids, -1)
      left = left - #ids
    end
  elseif string.sub(field, 1, 2) == 'w:' and left > 0 then
    local length, rest = string.match(field, '^w:(%d+):(.*)$')
    if length then -- else it is damaged
      local namespace, id = string.sub(rest, 1, length), string.sub(rest, length + 1)
      redis.call('UNLINK', join(all_writes, namespace, id))
    end
    redis.call('HDEL', meta, field)
    left = left - 1
  end
  if left <= 0 then
    return 1
  end
end
remove_thread(meta, blobs, threads, thread_id, runs)
return 0
