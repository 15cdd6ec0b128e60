-- Takes threads out of the registry of which nothing is left.
-- KEYS: threads, meta of each
-- ARGV: the threads
-- Reply: 0
for i, thread_id in ipairs(ARGV) do
  if redis.call('EXISTS', KEYS[i + 1]) == 0 then
    may('ZREM', KEYS[1], thread_id)
  end
end
return 0
