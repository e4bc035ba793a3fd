-- One beat of one worker.
-- KEYS: stat, workers, names, ready, one for each queue
-- ARGV: id, record, promise in ms, whether it takes work (1 or 0), worker, host, forget in ms, most to prune,
--       what is left of the promise in ms
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local id, promise, worker, left = ARGV[1], ARGV[3], ARGV[5], ARGV[9]
local lost_at = string.format('%.0f', now + left)
local takes_work = ARGV[4] == '1'

-- First, because a server that is out of memory refuses what follows.
if not takes_work then
  for i = 4, #KEYS do redis.call('ZREM', KEYS[i], id) end
end

redis.call('SET', KEYS[1], ARGV[2], 'PX', left)
local new = redis.call('ZADD', KEYS[2], lost_at, id) == 1
-- Where the index was evicted, the names of who was in it have nobody left to prune them.
if new and redis.call('ZCARD', KEYS[2]) == 1 then redis.call('DEL', KEYS[3]) end
local entry, known = promise .. '\n' .. worker .. '\n' .. ARGV[6], redis.call('HGET', KEYS[3], id)
-- One that somebody has called lost beats again: it is not.
if known ~= entry then redis.call('HSET', KEYS[3], id, entry) end
if not known or new then
  redis.call('HSET', KEYS[3], '=' .. worker, id)
  new = true
end
if takes_work then
  for i = 4, #KEYS do
    if redis.call('ZADD', KEYS[i], lost_at, id) == 1 then new = true end
  end
end

-- One beat in eight, by the last digits of the clock, tidies up.
if not new and time[2] % 8 ~= 0 then return now end

-- So long that among the beats until then one is sure to tidy up.
local keep = promise + ARGV[7] + 100 * promise
for i = 2, #KEYS do
  local key = KEYS[i]
  if i ~= 3 then
    local old = redis.call('ZRANGEBYSCORE', key, '-inf', now - ARGV[7], 'LIMIT', 0, ARGV[8])
    if #old > 0 then redis.call('ZREM', key, unpack(old)) end
    if i == 2 then
      for _, lost in ipairs(old) do
        local entry = redis.call('HGET', KEYS[3], lost)
        local name = entry and string.match(entry, '\n(.*)\n')
        redis.call('HDEL', KEYS[3], lost)
        if name and redis.call('HGET', KEYS[3], '=' .. name) == lost then redis.call('HDEL', KEYS[3], '=' .. name) end
      end
    end
  end
  local ttl = redis.call('PTTL', key)
  if ttl ~= -2 and ttl < keep then redis.call('PEXPIRE', key, 2 * keep) end
end
return now
