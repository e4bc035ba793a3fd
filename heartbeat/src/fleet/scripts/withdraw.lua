-- A worker that has stopped is no longer there.
-- KEYS: stat, workers, names, ready, one for each queue
-- ARGV: id, worker
local id, name = ARGV[1], '=' .. ARGV[2]
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], id)
redis.call('HDEL', KEYS[3], id)
if redis.call('HGET', KEYS[3], name) == id then redis.call('HDEL', KEYS[3], name) end
for i = 4, #KEYS do redis.call('ZREM', KEYS[i], id) end
return 1
