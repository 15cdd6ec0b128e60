-- Removes a thread, at most `limit` checkpoints at a time so that nobody waits for long. The
-- thread is gone for everybody with the first call; the others remove what is left of it.
-- Needs no room: it works on a server that is out of memory.
-- KEYS: meta, blobs, threads
-- ARGV: thread, base of indexes, base of checkpoint keys, base of writes keys, base of runs,
--       limit, '1' to begin, '0' to go on
-- Reply: 1 when something is left, else 0
local meta, blobs, threads = unpack(KEYS)
local thread_id, indexes, checkpoints, all_writes, runs, limit, begins = unpack(ARGV, 1, 7)
local left = tonumber(limit)
-- Another client may have finished it, and begun the thread anew.
if begins == '0' and life_of(meta) then
  return 0
end
redis.call('ZCARD', threads)
redis.call('HDEL', meta, 'life')
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
    local namespace, id = string.sub(rest, 1, length), string.sub(rest, length + 1)
    redis.call('UNLINK', join(all_writes, namespace, id))
    redis.call('HDEL', meta, field)
    left = left - 1
  end
  if left <= 0 then
    return 1
  end
end
remove_thread(meta, blobs, threads, thread_id, runs)
return 0
