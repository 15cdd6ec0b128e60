-- Copies all of a thread to another in one step: what the other has besides stays.
-- KEYS: meta, blobs of the source; meta, blobs of the target; threads
-- ARGV: operation, keep, ttl in milliseconds or '', fence, target thread,
--       bases of indexes, checkpoint keys and writes keys of the source, those of the target,
--       base of runs
-- Reply: 0 or SOON; DYING, FENCED or RENEW; namespace and id of a record that is lost
local meta, blobs, target_meta, target_blobs, threads = unpack(KEYS)
local operation, keep, ttl, fence, target_id, indexes, checkpoints, all_writes, target_indexes,
  target_checkpoints, target_writes, runs = unpack(ARGV, 1, 12)
local life = life_of(meta)
local thread = look(target_meta, { operation })
if not life or is_repeated(thread, operation) then
  return 0
end
if is_dying(thread) then
  return DYING
end
if is_fenced(thread, fence) then
  return FENCED
end
if not plan(thread, ttl) then
  return RENEW
end
local fields = redis.call('HKEYS', meta)
for _, field in ipairs(fields) do
  if string.sub(field, 1, 3) == 'ns:' then
    local namespace = string.sub(field, 4)
    for _, id in ipairs(redis.call('LRANGE', join(indexes, namespace), 0, -1)) do
      if redis.call('GETRANGE', join(checkpoints, namespace, id), 0, 3) ~= life then
        return { namespace, id }
      end
    end
  end
end
redis.call('HLEN', blobs)
redis.call('HLEN', target_blobs)
redis.call('ZCARD', threads)
hold(thread, fence)

register(threads, target_id, target_meta, thread)
change(target_meta, thread, { operation }, keep)

-- Those that the target has already, from earlier slices for example, are not read.
local ids = redis.call('HKEYS', blobs)
for from = 1, #ids, UNPACKED do
  local absent = {}
  for i = from, math.min(from + UNPACKED - 1, #ids) do
    if redis.call('HEXISTS', target_blobs, ids[i]) == 0 then
      absent[#absent + 1] = ids[i]
    end
  end
  if #absent > 0 then
    local some, pairs_of = redis.call('HMGET', blobs, unpack(absent)), {}
    for i, id in ipairs(absent) do
      pairs_of[2 * i - 1], pairs_of[2 * i] = id, some[i]
    end
    redis.call('HSET', target_blobs, unpack(pairs_of))
  end
end

local function copy_writes(namespace, id)
  local pending = redis.call('HGETALL', join(all_writes, namespace, id))
  local target = join(target_writes, namespace, id)
  for i = 1, #pending, 2 do
    if string.sub(pending[i + 1], 1, 4) == life then
      redis.call('HSET', target, pending[i], thread.life .. string.sub(pending[i + 1], 5))
    end
  end
  if #pending > 0 then
    let(target, thread.lease)
  end
end

for _, field in ipairs(fields) do
  if string.sub(field, 1, 3) == 'ns:' then
    local namespace = string.sub(field, 4)
    local target_index = join(target_indexes, namespace)
    local is_new_index = redis.call('HSETNX', target_meta, field, '') == 1
    if is_new_index then
      redis.call('UNLINK', target_index)
    end
    for _, id in ipairs(redis.call('LRANGE', join(indexes, namespace), 0, -1)) do
      local stored = redis.call('GET', join(checkpoints, namespace, id))
      local target = join(target_checkpoints, namespace, id)
      local copied = thread.life .. string.sub(stored, 5)
      if thread.lease then
        redis.call('SET', target, copied, 'PXAT', whole(thread.lease))
      else
        redis.call('SET', target, copied)
      end
      insert(target_index, id, redis.call('LINDEX', target_index, -1))
      redis.call('HDEL', target_meta, orphan(namespace, id))
      copy_writes(namespace, id)
    end
    if is_new_index then
      let(target_index, thread.lease)
    end
  elseif string.sub(field, 1, 2) == 'w:' then
    local length, rest = string.match(field, '^w:(%d+):(.*)$')
    local namespace, id = string.sub(rest, 1, length), string.sub(rest, length + 1)
    local held = redis.call('GETRANGE', join(target_checkpoints, namespace, id), 0, 3)
    if held ~= thread.life then
      redis.call('HSET', target_meta, field, '')
    end
    copy_writes(namespace, id)
  elseif string.sub(field, 1, 4) == 'run:' then
    redis.call('HSET', target_meta, field, '')
    local run = runs .. ':' .. escape(string.sub(field, 5))
    add_run(run, target_id, thread.lease, redis.call('SCARD', run))
  end
end
settle(target_meta, target_blobs, thread)
return thread.is_soon and SOON or 0
