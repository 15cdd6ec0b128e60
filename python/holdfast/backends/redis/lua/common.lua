-- What every script begins with. A script runs alone, but is not undone when it fails:
-- each looks at all its keys, and so finds those of a wrong type, before it writes to one.

local UNPACKED = 200
-- Replies to a change that was not made: the thread is being removed; the epoch moved.
local DYING, MOVED = -1, -2

-- Redis compares text as its locale says; ids are compared as bytes.
local function less(a, b)
  for at = 1, math.min(#a, #b) do
    local x, y = string.byte(a, at), string.byte(b, at)
    if x ~= y then
      return x < y
    end
  end
  return #a < #b
end

-- As rust/store/key.rs does it.
local function escape(id)
  if id == '' then
    return '%00'
  end
  return (string.gsub(id, '[:{}%%]', { [':'] = '%3A', ['{'] = '%7B', ['}'] = '%7D', ['%'] = '%25' }))
end

local function join(base, namespace, id)
  local key = base
  if namespace ~= '' then
    key = key .. ':' .. escape(namespace)
  end
  if id then
    key = key .. ':' .. escape(id)
  end
  return key
end

-- A namespace and an id as one field of the thread's hash.
local function orphan(namespace, id)
  return 'w:' .. #namespace .. ':' .. namespace .. id
end

-- How many ids of an index are less than `id`.
local function position(index, id)
  local low, high = 0, redis.call('LLEN', index)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if less(redis.call('LINDEX', index, middle), id) then
      low = middle + 1
    else
      high = middle
    end
  end
  return low
end

-- A stored record: life of the thread (4 bytes), length of the parent's id (u16), the
-- parent's id, then the envelope that rust/store/chunk.rs describes.
local function parent_of(stored)
  local high, low = string.byte(stored, 5, 6)
  local length = (high or 0) * 256 + (low or 0)
  return string.sub(stored, 7, 6 + length), 7 + length
end

-- Add to `front` the pages that the envelope at `at` refers to and `known` lacks.
local function add_pages(stored, at, known, front)
  local first = string.byte(stored, at)
  local format = bit.rshift(first or 0, 4)
  if format < 1 or format > 2 or bit.band(first, 4) == 0 then
    return
  end
  local high, low = string.byte(stored, at + 2, at + 3)
  local from = at + 4
  for _ = 1, (high or 0) * 256 + (low or 0) do
    if (string.byte(stored, from) or 0) > 0 then
      local id = string.sub(stored, from + 1, from + 16)
      if not known[id] then
        known[id] = true
        front[#front + 1] = id
      end
    end
    from = from + 17
  end
end

-- The pages of `front` and all those below them, as pairs of id and bytes.
local function pages(blobs, known, front)
  local found = {}
  while #front > 0 do
    local below = {}
    for from = 1, #front, UNPACKED do
      local to = math.min(from + UNPACKED - 1, #front)
      local some = redis.call('HMGET', blobs, unpack(front, from, to))
      for i = 1, #some do
        if some[i] then
          found[#found + 1] = front[from + i - 1]
          found[#found + 1] = some[i]
          add_pages(some[i], 1, known, below)
        end
      end
    end
    front = below
  end
  return found
end

-- Pending writes begin with the life of their thread.
local function add_pages_of_writes(writes, known, front)
  for i = 2, #writes, 2 do
    add_pages(writes[i], 5, known, front)
  end
end

-- The life of a thread; nil where there is none, or one that is being removed.
local function life_of(meta)
  return redis.call('HGET', meta, 'life') or nil
end

-- Operations are remembered in some fields by their first byte, so that a change reads a part
-- of them: entries of a time in seconds (u32) and the operation (8 bytes), oldest first.
local PARTS, ENTRY = 16, 12

local function part_of(operation)
  return 'ops:' .. string.byte(operation) % PARTS
end

-- A thread's life, epoch, and what it remembers about operations; and other fields of its
-- hash. Calls cost more than what they do, so that all is asked in one.
local function look(meta, operations, ...)
  local fields, parts = { 'life', 'epoch', 'keep', ... }, {}
  local count = #fields
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
  return {
    life = found[1],
    epoch = found[2],
    keep = tonumber(found[3]) or 0,
    parts = parts,
    others = { unpack(found, 4, count) },
  }
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

-- Removing a thread begins with its life and ends with its epoch.
local function is_dying(thread)
  return thread.epoch and not thread.life
end

local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]), string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
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

-- Give the thread a life if it has none, move its epoch, and remember the operations for
-- `keep` seconds at least; and set other fields. A new thread's life and epoch come from an
-- operation, which is random: what was marked in an earlier life must not fit this one.
local function change(meta, thread, operations, keep, seconds, milliseconds, ...)
  local fields = { ... }
  local function set(field, value)
    fields[#fields + 1] = field
    fields[#fields + 1] = value
  end
  if thread.life then
    -- Below 2^53, to which numbers are exact.
    set('epoch', string.format('%.0f', thread.epoch + 1))
  else
    thread.life = string.sub(operations[1], 1, 4)
    set('life', thread.life)
    set('epoch', string.format('%.0f', struct.unpack('>I6', operations[1])))
    set('created', milliseconds)
  end
  if tonumber(keep) > thread.keep then
    thread.keep = tonumber(keep)
    set('keep', keep)
  end
  for _, operation in ipairs(operations) do
    set(remember(thread, operation, seconds))
  end
  redis.call('HSET', meta, unpack(fields))
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

-- Remove what names a thread when nothing of it is left.
local function remove_thread(meta, blobs, threads, thread, runs)
  for _, field in ipairs(redis.call('HKEYS', meta)) do
    if string.sub(field, 1, 4) == 'run:' then
      redis.call('SREM', runs .. ':' .. escape(string.sub(field, 5)), thread)
    end
  end
  redis.call('UNLINK', meta, blobs)
  redis.call('ZREM', threads, thread)
end
