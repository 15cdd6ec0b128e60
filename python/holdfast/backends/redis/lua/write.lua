-- Stores groups of pending writes of one checkpoint with their chunks: each group whole or not
-- at all, after proving that every id of its frontier is stored. A write of an index of 0 or
-- more that exists stays as it is. Tasks that end at the same moment share one call; each has
-- its own fence, and is refused alone.
-- KEYS: meta, blobs, writes, checkpoint, threads
-- ARGV: keep, ttl in milliseconds or '', thread, namespace, id; for each group: operation, fence,
--       when the checkpoint was made, length of the frontier, number of writes, number of chunks,
--       the frontier, pairs of field and write, pairs of chunk id and bytes
-- Reply: for each group its missing ids, SOON, DELETED or FENCED; or DYING or RENEW
local meta, blobs, writes, checkpoint, threads = unpack(KEYS)
local keep, ttl, thread_id, namespace, id = unpack(ARGV, 1, 5)

local groups, operations = {}, {}
local at = 6
while at <= #ARGV do
  local group = { operation = ARGV[at], fence = ARGV[at + 1], made = tonumber(ARGV[at + 2]) }
  group.frontier = at + 6
  group.writes = group.frontier + ARGV[at + 3]
  group.chunks = group.writes + 2 * ARGV[at + 4]
  at = group.chunks + 2 * ARGV[at + 5]
  group.last = at - 1
  groups[#groups + 1] = group
  operations[#operations + 1] = group.operation
end
local late = orphan(namespace, id)
local thread = look(meta, operations, late)
if is_dying(thread) then
  return DYING
end

local held, replies, accepted = {}, {}, {}
operations = {}
for i, group in ipairs(groups) do
  if is_repeated(thread, group.operation) then
    replies[i] = {}
  elseif is_fenced(thread, group.fence) then
    replies[i] = FENCED
  elseif is_late(thread, group.made, false, checkpoint) then
    replies[i] = DELETED
  else
    replies[i] = lacking(blobs, group.frontier, group.writes - 1)
    if #replies[i] == 0 then
      accepted[#accepted + 1] = group
      operations[#operations + 1] = group.operation
      for field = group.writes, group.chunks - 2, 2 do
        held[ARGV[field]] = redis.call('HGET', writes, ARGV[field])
      end
      hold(thread, group.fence)
      group.at = i
    end
  end
end
if #accepted == 0 then
  return replies
end
if not plan(thread, ttl) then
  return RENEW
end
local has_checkpoint = thread.life and redis.call('GETRANGE', checkpoint, 0, 3) == thread.life

register(threads, thread_id, meta, thread)
if has_checkpoint or thread.others[1] then
  change(meta, thread, operations, keep)
else
  change(meta, thread, operations, keep, late, '')
end
if thread.is_new then
  redis.call('UNLINK', writes)
end
for _, group in ipairs(accepted) do
  store(blobs, group.chunks, group.last)
  for i = group.writes, group.chunks - 2, 2 do
    local field, value = ARGV[i], thread.life .. ARGV[i + 1]
    local is_special = string.byte(field) >= 128 -- the sign of the index
    if is_special or not held[field] or string.sub(held[field], 1, 4) ~= thread.life then
      redis.call('HSET', writes, field, value)
      held[field] = value
    end
  end
end
-- Also one that an earlier life has left, with a lease of that life.
if thread.lease or not thread.is_new then
  let(writes, thread.lease)
end
settle(meta, blobs, thread)
if thread.is_soon then
  replies[accepted[1].at] = SOON
end
return replies
