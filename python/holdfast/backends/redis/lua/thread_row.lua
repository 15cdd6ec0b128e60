-- Reads what a listing shows of a thread.
-- KEYS: meta, blobs
-- ARGV: base of indexes, base of checkpoint keys, base of writes keys
-- Reply: nil where there is no such thread, nothing where it has no checkpoint; epoch, when it was created, when it expires or '',
--        pairs of namespace and number of checkpoints, namespace and id of the head, its record
--        (nil if it is lost), writes, and the pages of the record that are of no value
local meta, blobs = unpack(KEYS)
local indexes, checkpoints, all_writes = unpack(ARGV)
local life, epoch, created, expires =
  unpack(redis.call('HMGET', meta, 'life', 'epoch', 'created', 'expires'))
if not life and redis.call('EXISTS', meta) == 0 then
  return false
end
if not life or is_past(expires) then
  return {}
end
local namespaces, first = {}, nil
for _, field in ipairs(redis.call('HKEYS', meta)) do
  if string.sub(field, 1, 3) == 'ns:' then
    local namespace = string.sub(field, 4)
    namespaces[#namespaces + 1] = namespace
    namespaces[#namespaces + 1] = redis.call('LLEN', join(indexes, namespace))
    if not first or less(namespace, first) then
      first = namespace
    end
  end
end
if not first then
  return {}
end
local id = redis.call('LINDEX', join(indexes, first), -1) or ''
local stored = record_at(join(checkpoints, first, id), life)
local pending = redis.call('HGETALL', join(all_writes, first, id))
local known, front = {}, {}
if stored then
  local _, at = parent_of(stored)
  add_pages(stored, at, known, front, MANIFEST)
end
local found = pages(blobs, known, front, MANIFEST)
return { epoch, created, expires or '', namespaces, first, id, stored, pending, found }
