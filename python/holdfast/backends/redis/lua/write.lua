-- Stores groups of pending writes of one checkpoint with their chunks: each group whole or not
-- at all, after proving that every id of its frontier is stored. A write of an index of 0 or
-- more that exists stays as it is. Tasks that end at the same moment share one call.
-- KEYS: meta, blobs, writes, checkpoint, threads
-- ARGV: keep, thread, namespace, id; for each group: operation, length of the frontier, number
--       of writes, number of chunks, the frontier, pairs of field and write, pairs of chunk id
--       and bytes
-- Reply: for each group its missing ids; or DYING
local meta, blobs, writes, checkpoint, threads = unpack(KEYS)
local keep, thread_id, namespace, id = unpack(ARGV, 1, 4)

local groups, operations = {}, {}
local at = 5
while at <= #ARGV do
  local group = { operation = ARGV[at], frontier = at + 4 }
  group.writes = group.frontier + ARGV[at + 1]
  group.chunks = group.writes + 2 * ARGV[at + 2]
  at = group.chunks + 2 * ARGV[at + 3]
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
  replies[i] = {}
  if not is_repeated(thread, group.operation) then
    replies[i] = lacking(blobs, group.frontier, group.writes - 1)
    if #replies[i] == 0 then
      accepted[#accepted + 1] = group
      operations[#operations + 1] = group.operation
      for field = group.writes, group.chunks - 2, 2 do
        held[ARGV[field]] = redis.call('HGET', writes, ARGV[field])
      end
    end
  end
end
if #accepted == 0 then
  return replies
end
local is_new = not thread.life
local has_checkpoint = not is_new and redis.call('GETRANGE', checkpoint, 0, 3) == thread.life
local seconds, milliseconds = now()

redis.call('ZADD', threads, milliseconds, thread_id)
if has_checkpoint or thread.others[1] then
  change(meta, thread, operations, keep, seconds, milliseconds)
else
  change(meta, thread, operations, keep, seconds, milliseconds, late, '')
end
if is_new then
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
return replies
