-- The last incarnations of workers that are asked for by name. Reads only.
-- KEYS: workers, names, ready
-- ARGV: forget in ms, one name for each worker
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found = { now, '0' }
for i = 2, #ARGV do
  local id = redis.call('HGET', KEYS[2], '=' .. ARGV[i])
  local score = id and redis.call('ZSCORE', KEYS[1], id)
  if score and tonumber(score) >= now - ARGV[1] then
    table.insert(found, string.sub(id, 1, 64))
    table.insert(found, score)
    table.insert(found, redis.call('ZSCORE', KEYS[3], id) or '0')
    table.insert(found, string.sub(redis.call('HGET', KEYS[2], id) or '', 1, 4096))
  end
end
return found
