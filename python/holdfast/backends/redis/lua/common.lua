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
  if not first or bit.rshift(first, 4) ~= 1 or bit.band(first, 4) == 0 then
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

-- A thread's life, epoch and the operations that it remembers.
local function look(meta)
  local found = redis.call('HMGET', meta, 'life', 'epoch', 'ops', 'ops:old', 'ops:since', 'ops:keep')
  return {
    life = found[1],
    epoch = found[2],
    ops = found[3] or '',
    old = found[4] or '',
    since = tonumber(found[5]) or 0,
    keep = tonumber(found[6]) or 0,
  }
end

-- Removing a thread begins with its life and ends with its epoch.
local function is_dying(thread)
  return thread.epoch and not thread.life
end

local function is_among(operations, operation)
  local from = 1
  while true do
    local at = string.find(operations, operation, from, true)
    if not at then
      return false
    end
    if (at - 1) % #operation == 0 then
      return true
    end
    from = at + 1
  end
end

local function is_repeated(thread, operation)
  return is_among(thread.ops, operation) or is_among(thread.old, operation)
end

local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]), string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
end

-- Give the thread a life if it has none, move its epoch, and remember the operation for
-- `keep` seconds at least. A new thread's life and epoch come from the operation, which is
-- random: what was marked in an earlier life must not fit this one.
local function change(meta, thread, operation, keep, epoch, seconds, milliseconds)
  local fields = {}
  if thread.life then
    redis.call('HINCRBY', meta, 'epoch', 1)
  else
    thread.life = string.sub(operation, 1, 4)
    fields = { 'life', thread.life, 'epoch', epoch, 'created', milliseconds }
  end
  local function set(field, value)
    fields[#fields + 1] = field
    fields[#fields + 1] = value
  end
  keep = tonumber(keep)
  if keep > thread.keep then
    set('ops:keep', keep)
  end
  -- Two generations: what was not old at the last turn is kept until the next one.
  if seconds - thread.since > math.max(keep, thread.keep) then
    set('ops:since', seconds)
    set('ops:old', thread.ops)
    set('ops', operation)
  else
    set('ops', thread.ops .. operation)
  end
  redis.call('HSET', meta, unpack(fields))
end

-- Those of ARGV[from..to] that are not stored.
local function lacking(blobs, from, to)
  redis.call('HLEN', blobs)
  local missing = {}
  for i = from, to do
    if redis.call('HEXISTS', blobs, ARGV[i]) == 0 then
      missing[#missing + 1] = ARGV[i]
    end
  end
  return missing
end

-- Store the pairs of field and value that ARGV ends with.
local function store(key, from)
  for i = from, #ARGV, UNPACKED do
    redis.call('HSET', key, unpack(ARGV, i, math.min(i + UNPACKED - 1, #ARGV)))
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
