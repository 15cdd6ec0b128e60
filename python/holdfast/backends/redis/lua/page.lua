-- Reads a thread's checkpoints, greatest id first, with their pending writes and all pages.
-- Where a page begins is found by binary search in the index of each namespace.
-- KEYS: meta, blobs
-- ARGV: base of indexes, base of checkpoint keys, base of writes keys, limit,
--       '1' for ids alone,
--       '1' and a namespace, or '0' and '' for all,
--       '1' and an id that it must be, or '0' and '',
--       '1' and an id that it must be less than, or '0' and '',
--       what the cursor allows ('' for all, '<' ids below its own, '=' and its own,
--       'n' its own in lesser namespaces), its id, its namespace
-- Reply: life, rows of namespace, id, record and writes; pages. Of ids alone: pairs
local meta, blobs = unpack(KEYS)
local indexes, checkpoints, all_writes, limit, ids_alone, has_namespace, namespace, has_id, only,
  has_before, before, cursor, cursor_id, cursor_namespace = unpack(ARGV, 1, 14)
limit = tonumber(limit)
local life, is_known = life_of(meta, namespace)
if not life then
  return { '', {}, {} }
end

local namespaces = {}
if has_namespace == '1' then
  namespaces[1] = is_known and namespace or nil
else
  for _, field in ipairs(redis.call('HKEYS', meta)) do
    if string.sub(field, 1, 3) == 'ns:' then
      namespaces[#namespaces + 1] = string.sub(field, 4)
    end
  end
end

-- How many ids of a namespace's index are within the bounds.
local function within(index, of)
  local count = redis.call('LLEN', index)
  if has_before == '1' then
    count = math.min(count, position(index, before))
  end
  if cursor ~= '' then
    local below = position(index, cursor_id)
    local is_own = cursor == '=' or (cursor == 'n' and less(of, cursor_namespace))
    if is_own and redis.call('LINDEX', index, below) == cursor_id then
      below = below + 1
    end
    count = math.min(count, below)
  end
  return count
end

-- The next checkpoint of each namespace.
local heads = {}
for _, of in ipairs(namespaces) do
  local index = join(indexes, of)
  local at = within(index, of) - 1
  local least = 0
  if has_id == '1' then
    local exact = position(index, only)
    if exact <= at and redis.call('LINDEX', index, exact) == only then
      at, least = exact, exact
    else
      at = -1
    end
  end
  if at >= 0 then
    heads[#heads + 1] = { of = of, index = index, at = at, least = least, id = redis.call('LINDEX', index, at) }
  end
end
local function is_first(a, b)
  if a.id ~= b.id then
    return less(b.id, a.id)
  end
  return less(b.of, a.of)
end
table.sort(heads, is_first)

local rows, known, front = {}, {}, {}
local count = 0
while count < limit and #heads > 0 do
  local head = heads[1]
  count = count + 1
  if ids_alone == '1' then
    rows[#rows + 1] = head.of
    rows[#rows + 1] = head.id
  else
    local stored = record_at(join(checkpoints, head.of, head.id), life)
    local pending = redis.call('HGETALL', join(all_writes, head.of, head.id))
    if stored then
      local _, at = parent_of(stored)
      add_pages(stored, at, known, front)
      add_pages_of_writes(pending, known, front)
    end
    rows[#rows + 1] = { head.of, head.id, stored, pending }
  end
  head.at = head.at - 1
  if head.at < head.least then
    table.remove(heads, 1)
  else
    head.id = redis.call('LINDEX', head.index, head.at)
    local at = 1
    while heads[at + 1] and is_first(heads[at + 1], head) do
      heads[at] = heads[at + 1]
      at = at + 1
    end
    heads[at] = head
  end
end
return { life, rows, pages(blobs, known, front) }
