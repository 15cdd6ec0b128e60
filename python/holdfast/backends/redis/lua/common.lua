-- What every script begins with. A script runs alone, but is not undone when it fails:
-- each looks at all its keys, and so finds those of a wrong type, before it writes to one.

local UNPACKED = 200
-- Replies to a change that was not made: the thread is being removed; the epoch moved; it was
-- deleted after the change's run began; another has the lease; its keys must live longer first.
local DYING, MOVED, DELETED, FENCED, RENEW, ORPHANED = -1, -2, -3, -4, -5, -6
-- Reply to a change that was made: the keys' lease should be renewed.
local SOON = 2

local clock
-- The server's time in seconds, and in milliseconds: within a script it stands still.
local function now()
  if not clock then
    local time = redis.call('TIME')
    clock = { tonumber(time[1]), time[1] * 1000 + math.floor(time[2] / 1000) }
  end
  return clock[1], clock[2]
end

-- A number as Redis takes it. Below 2^53, to which numbers are exact.
local function whole(number)
  return string.format('%.0f', number)
end

-- Whether a time in milliseconds, or none, has come.
local function is_past(milliseconds)
  local moment = milliseconds and tonumber(milliseconds)
  if not moment then
    return false -- or damaged: who reads it is told
  end
  local _, present = now()
  return moment <= present
end

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

-- Add to `front` the pages that the envelope at `at` refers to and `known` lacks, from the level
-- `lowest` on.
local function add_pages(stored, at, known, front, lowest)
  local first = string.byte(stored, at) or 0
  -- All formats, from 1 in the upper half of the byte on, have what they refer to in front.
  if first < 16 or bit.band(first, 4) == 0 then
    return
  end
  local high, low = string.byte(stored, at + 2, at + 3)
  local from = at + 4
  for _ = 1, (high or 0) * 256 + (low or 0) do
    if (string.byte(stored, from) or 0) >= (lowest or 1) then
      local id = string.sub(stored, from + 1, from + 16)
      if not known[id] then
        known[id] = true
        front[#front + 1] = id
      end
    end
    from = from + 17
  end
end

-- The pages of `front` and all those below them, from the level `lowest` on, as pairs of id and
-- bytes.
local function pages(blobs, known, front, lowest)
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
          add_pages(some[i], 1, known, below, lowest)
        end
      end
    end
    front = below
  end
  return found
end

-- The level of pages that are of no value: MANIFEST of rust/store/chunk.rs.
local MANIFEST = 64

-- Pending writes begin with the life of their thread.
local function add_pages_of_writes(writes, known, front)
  for i = 2, #writes, 2 do
    add_pages(writes[i], 5, known, front)
  end
end

-- The life of a thread; nil where there is none, or one that is being removed or has expired. And
-- whether it has checkpoints in a namespace: an index that it does not know is of an earlier life.
local function life_of(meta, namespace)
  local life, expires, has = unpack(redis.call('HMGET', meta, 'life', 'expires', 'ns:' .. (namespace or '')))
  if not life or is_past(expires) then
    return nil, false
  end
  return life, has
end

-- A record as it is stored, if it is of this life: any other is damaged, where an index of this life
-- names it.
local function record_at(key, life)
  local stored = redis.call('GET', key)
  return stored and string.sub(stored, 1, 4) == life and stored
end

-- Do what can wait on a server that refuses to write for the moment; false where it has to.
local function may(...)
  local done = redis.pcall(...)
  if type(done) ~= 'table' or not done.err then
    return done
  end
  for _, refusal in ipairs({ 'OOM', 'READONLY', 'MISCONF', 'NOREPLICAS' }) do
    if string.find(done.err, refusal, 1, true) then
      return false
    end
  end
  error(done.err)
end
