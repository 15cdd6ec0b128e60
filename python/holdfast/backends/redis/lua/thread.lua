-- What scripts that look at a thread as a whole begin with: its hash, whom it refuses, and how
-- long it and its keys live.
--
-- A thread that expires: `expires` is the moment, exact, and the chunks go at it by themselves.
-- All other keys of the thread have a lease, renewed in batches, never at each change:
--   1. Every key lives until `leased` at least; where there is no such field, for ever.
--   2. Where `leased` is there, no key lives for ever, unless `renewal` says that one is open.
--   3. The hash goes by itself only where 2 holds: what names the keys goes last.

-- Operations are remembered in some fields by their first byte, so that a change reads a part
-- of them: entries of a time in seconds (u32) and the operation (8 bytes), oldest first.
local PARTS, ENTRY = 16, 12

local function part_of(operation)
  return 'ops:' .. string.byte(operation) % PARTS
end

-- What a thread's hash says, with what it remembers about operations; and other fields of it.
-- Calls cost more than what they do, so that all is asked in one.
local function look(meta, operations, ...)
  local fields = { 'life', 'epoch', 'keep', 'expires', 'leased', 'renewal', 'persistent', 'deleted',
    'lease_token', 'lease_until', ... }
  local count, parts = #fields, {}
  for _, operation in ipairs(operations) do
    local part = part_of(operation)
    if not parts[part] then
      fields[#fields + 1] = part
      parts[part] = #fields
    end
  end
  local found = redis.call('HMGET', meta, unpack(fields))
  for part, at in pairs(parts) do
    parts[part] = found[at] or ''
  end
  local thread = {
    life = found[1],
    epoch = found[2],
    keep = tonumber(found[3]) or 0,
    expires = found[4] and tonumber(found[4]),
    leased = found[5] and tonumber(found[5]),
    renewal = found[6],
    is_persistent = found[7],
    deleted = found[8] and tonumber(found[8]),
    token = found[9],
    held = found[10] and tonumber(found[10]),
    was_held = found[10],
    parts = parts,
    others = { unpack(found, 11, count) },
  }
  if thread.renewal then
    thread.renewing, thread.target, thread.is_open = string.match(thread.renewal, '^(%x+):(%d*):(%d)$')
    thread.target = tonumber(thread.target)
    thread.is_open = thread.is_open == '1'
  end
  if thread.deleted and is_past(thread.deleted + TOMBSTONE) then
    thread.deleted, thread.has_old_tombstone = nil, true
  end
  return thread
end

local function is_repeated(thread, operation)
  local operations, from = thread.parts[part_of(operation)], 1
  while true do
    local at = string.find(operations, operation, from, true)
    if not at or at % ENTRY == 5 then
      return at ~= nil
    end
    from = at + 1
  end
end

-- Removing a thread begins with its life and ends with its epoch. One that has expired while
-- something held its hash is removed in the same way.
local function is_dying(thread)
  return (thread.epoch and not thread.life) or (thread.life and is_past(thread.expires))
end

-- The field that remembers `operation`, without those that are old enough to be forgotten.
local function remember(thread, operation, seconds)
  local part = part_of(operation)
  local operations, oldest, from = thread.parts[part], seconds - thread.keep, 1
  while from <= #operations and struct.unpack('>I4', operations, from) < oldest do
    from = from + ENTRY
  end
  operations = string.sub(operations, from) .. struct.pack('>I4', seconds) .. operation
  thread.parts[part] = operations
  return part, operations
end

-- Whether one who follows a checkpoint is of a run that began before the thread was deleted.
local function is_late(thread, made, is_parent, checkpoint)
  if not thread.deleted or (made > thread.deleted and (thread.life or not is_parent)) then
    return false
  end
  return not thread.life or redis.call('GETRANGE', checkpoint, 0, 3) ~= thread.life
end

-- The same of several: entries of a time (u48), whether it is the parent (u8), namespace and id
-- (each behind its length, u32).
local function is_late_after(thread, follows, checkpoints)
  local at = 1
  while at <= #follows do
    local made, is_parent, namespace, id
    made, is_parent, namespace, id, at = struct.unpack('>I6BI4c0I4c0', follows, at)
    if is_late(thread, made, is_parent > 0, join(checkpoints, namespace, id)) then
      return true
    end
  end
  return false
end

-- Whether the lease forbids a change. A fence is a token and milliseconds, or ''.
local function is_fenced(thread, fence)
  if fence ~= '' then
    return not thread.held or string.match(fence, '^%d+') ~= thread.token
  end
  return thread.held and not is_past(thread.held)
end

-- Whether the parent is needed, as its entry says, and not stored.
local function is_orphaned(thread, follows, checkpoints)
  if string.byte(follows, 7) ~= 2 then
    return false
  end
  local _, _, namespace, id = struct.unpack('>I6BI4c0I4c0', follows)
  return not thread.life or redis.call('GETRANGE', join(checkpoints, namespace, id), 0, 3) ~= thread.life
end

-- What a change does to the lease.
local function hold(thread, fence)
  if thread.token then
    local _, present = now()
    thread.held = fence ~= '' and present + string.match(fence, '%d+$') or nil
  end
end

-- Decide when the thread expires after a change, and how long keys live that it makes (`lease`).
-- Gives false where all keys must live longer first.
local function plan(thread, ttl)
  local _, present = now()
  thread.had_expiry, thread.expires = thread.expires, nil
  if ttl ~= '' and not thread.is_persistent then
    thread.expires = present + ttl
  end
  if not thread.life then
    thread.leased = thread.expires and thread.expires + ttl
  elseif thread.leased and (thread.expires or math.huge) > thread.leased then
    return false
  elseif thread.expires then
    thread.is_soon = not thread.leased or thread.renewal or present + 1.5 * ttl > thread.leased
      or (thread.leased > present + 4 * ttl and (thread.had_expiry or 0) <= present + ttl)
  end
  if thread.leased and (thread.target or not thread.renewal) then
    thread.lease = math.max(thread.leased, thread.expires + ttl, thread.target or 0)
  end
  return true
end

-- Give the thread a life if it has none, move its epoch, and remember the operations for
-- `keep` seconds at least; and set other fields. A new thread's life and epoch come from an
-- operation, which is random: what was marked in an earlier life must not fit this one.
local function change(meta, thread, operations, keep, ...)
  local fields, gone = { ... }, {}
  local seconds, present = now()
  local function set(field, value)
    fields[#fields + 1] = field
    fields[#fields + 1] = value
  end
  if thread.life then
    set('epoch', whole(thread.epoch + 1))
  else
    thread.is_new = true
    thread.life = string.sub(operations[1], 1, 4)
    thread.epoch = struct.unpack('>I6', operations[1])
    set('life', thread.life)
    set('epoch', whole(thread.epoch))
    set('created', whole(present))
    if thread.leased then
      set('leased', whole(thread.leased))
    end
  end
  if thread.expires then
    set('expires', whole(thread.expires))
  elseif thread.had_expiry then
    gone[1] = 'expires'
  end
  if thread.held then
    set('lease_until', whole(thread.held))
  elseif thread.was_held then
    gone[#gone + 1] = 'lease_until'
  end
  if thread.has_old_tombstone then
    gone[#gone + 1] = 'deleted'
  end
  if tonumber(keep) > thread.keep then
    thread.keep = tonumber(keep)
    set('keep', keep)
  end
  for _, operation in ipairs(operations) do
    set(remember(thread, operation, seconds))
  end
  redis.call('HSET', meta, unpack(fields))
  if #gone > 0 then
    redis.call('HDEL', meta, unpack(gone))
  end
end

-- Have the hash live as long as there is something to know: rule 3, a tombstone for its time,
-- and a lease for as long after its end, so that it can be prolonged.
local function settle_hash(meta, thread)
  local _, present = now()
  local last = 0
  if thread.life or thread.epoch then
    if not thread.leased or thread.is_open or (thread.life and not thread.expires) then
      redis.call('PERSIST', meta)
      return
    end
    last = thread.life and thread.expires or thread.leased
  end
  if thread.deleted then
    last = math.max(last, thread.deleted + TOMBSTONE)
  end
  if thread.held or (thread.token and not thread.life) then
    last = math.max(last, (thread.held or present) + TOMBSTONE)
  end
  redis.call('PEXPIREAT', meta, whole(last))
end

-- Have hash and chunks live as long as the thread does after a change.
local function settle(meta, blobs, thread)
  if thread.expires then
    redis.call('PEXPIREAT', blobs, whole(thread.expires))
  elseif thread.had_expiry then
    redis.call('PERSIST', blobs)
  elseif not thread.is_new or not (thread.deleted or thread.token or thread.has_old_tombstone) then
    return
  end
  settle_hash(meta, thread)
end

-- Have a key that a change wrote live as long as the others.
local function let(key, lease)
  if lease then
    redis.call('PEXPIREAT', key, whole(lease))
  else
    redis.call('PERSIST', key)
  end
end

-- The same of a key that several threads share: nothing lives shorter for it.
local function let_shared(key, lease, left)
  local _, present = now()
  if not lease then
    if left >= 0 then
      redis.call('PERSIST', key)
    end
  elseif left == -2 or (left >= 0 and present + left < lease) then
    -- Generously, so that it is seldom done.
    redis.call('PEXPIREAT', key, whole(lease + 2 * (lease - present)))
  end
end

-- `count` is how many threads the run has.
local function add_run(run, thread_id, lease, count)
  local left = count == 0 and -2 or redis.call('PTTL', run)
  redis.call('SADD', run, thread_id)
  let_shared(run, lease, left)
end

-- Note a change in the registry, which lives as long as the threads in it. A new thread takes out
-- some of those that have expired.
local function register(threads, thread_id, meta, thread)
  local _, present = now()
  local left
  if thread.expires or thread.had_expiry or not thread.life then
    left = redis.call('PTTL', threads)
  end
  if not thread.life then
    local base = string.sub(meta, 1, #meta - #escape(thread_id))
    for _, other in ipairs(redis.call('ZRANDMEMBER', threads, 3)) do
      if other ~= thread_id and redis.call('EXISTS', base .. escape(other)) == 0 then
        redis.call('ZREM', threads, other)
      end
    end
  end
  redis.call('ZADD', threads, whole(present), thread_id)
  if left then
    let_shared(threads, thread.expires, left)
  end
end

-- Those of ARGV[from..to] that are not stored.
local function lacking(blobs, from, to)
  local missing = {}
  if from > to then
    redis.call('HLEN', blobs)
  end
  for i = from, to do
    if redis.call('HEXISTS', blobs, ARGV[i]) == 0 then
      missing[#missing + 1] = ARGV[i]
    end
  end
  return missing
end

-- Store pairs of field and value, ARGV[from..to].
local function store(key, from, to)
  for i = from, to, UNPACKED do
    redis.call('HSET', key, unpack(ARGV, i, math.min(i + UNPACKED - 1, to)))
  end
end

-- Put an id into its place in an index, unless it is there.
local function insert(index, id, last)
  if not last or less(last, id) then
    redis.call('RPUSH', index, id)
    return
  end
  local after = redis.call('LINDEX', index, position(index, id))
  if after ~= id then
    redis.call('LINSERT', index, 'BEFORE', after, id)
  end
end

-- Remove what names a thread when nothing of it is left, but for a tombstone and the lease.
local function remove_thread(meta, blobs, threads, thread_id, runs)
  local thread = look(meta, {})
  local is_kept = thread.deleted or thread.token
  local gone = {}
  for _, field in ipairs(redis.call('HKEYS', meta)) do
    if string.sub(field, 1, 4) == 'run:' then
      redis.call('SREM', runs .. ':' .. escape(string.sub(field, 5)), thread_id)
    end
    local is_remembered = thread.deleted and
      (field == 'deleted' or field == 'keep' or string.sub(field, 1, 4) == 'ops:')
    if not is_remembered and string.sub(field, 1, 6) ~= 'lease_' then
      gone[#gone + 1] = field
    end
  end
  redis.call('UNLINK', blobs)
  if not is_kept then
    redis.call('UNLINK', meta)
    redis.call('ZREM', threads, thread_id)
    return
  end
  for from = 1, #gone, UNPACKED do
    redis.call('HDEL', meta, unpack(gone, from, math.min(from + UNPACKED - 1, #gone)))
  end
  thread.life, thread.epoch = nil, nil
  settle_hash(meta, thread)
end
