-- Tries the rights that the other scripts need, on a thread that nobody else names and that
-- is gone when the script ends.
-- KEYS: meta, blobs, index, checkpoint, writes, threads, run
-- ARGV: thread
-- Reply: what the refused commands say
local meta, blobs, index, checkpoint, writes, threads, run = unpack(KEYS)
local thread = ARGV[1]
local refused = {}
local function try(...)
  local reply = redis.pcall(...)
  if type(reply) == 'table' and reply.err then
    refused[#refused + 1] = reply.err
  end
end
try('TIME')
try('HSET', meta, 'life', '', 'epoch', '1')
try('HSETNX', meta, 'ns:', '')
try('HINCRBY', meta, 'epoch', 1)
try('HGET', meta, 'life')
try('HMGET', meta, 'life')
try('HKEYS', meta)
try('HGETALL', meta)
try('HDEL', meta, 'life')
try('PEXPIREAT', meta, '99999999999999')
try('PTTL', meta)
try('PERSIST', meta)
try('HSET', blobs, 'id', '')
try('HLEN', blobs)
try('HEXISTS', blobs, 'id')
try('HSCAN', blobs, 0)
try('SET', checkpoint, '')
try('GET', checkpoint)
try('MGET', checkpoint)
try('STRLEN', checkpoint)
try('GETRANGE', checkpoint, 0, 0)
try('HSET', writes, 'field', '')
try('RPUSH', index, 'b')
try('LINSERT', index, 'BEFORE', 'b', 'a')
try('LINDEX', index, 0)
try('LLEN', index)
try('LRANGE', index, 0, -1)
try('EXISTS', index)
try('LREM', index, 1, 'a')
try('LTRIM', index, 1, 0)
try('ZADD', threads, 0, thread)
try('ZCARD', threads)
try('ZSCAN', threads, 0, 'COUNT', 1)
try('ZREVRANGEBYSCORE', threads, '+inf', '-inf', 'LIMIT', 0, 1)
try('ZRANDMEMBER', threads, 1)
try('ZREM', threads, thread)
try('SADD', run, thread)
try('SCARD', run)
try('SMEMBERS', run)
try('SREM', run, thread)
try('UNLINK', meta, blobs, index, checkpoint, writes, run)
return refused
