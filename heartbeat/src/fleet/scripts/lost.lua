-- The workers that went silent, the latest first, but for those that have started anew since. Reads only.
-- KEYS: workers, names
-- ARGV: the most to name, forget in ms
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lost = redis.call('ZREVRANGEBYSCORE', KEYS[1], now, now - ARGV[2], 'WITHSCORES', 'LIMIT', 0, ARGV[1])
local named = { now, #lost / 2 }
for i = 1, #lost, 2 do
  local id = lost[i]
  local entry = redis.call('HGET', KEYS[2], id)
  local name = entry and string.match(entry, '\n(.*)\n')
  local successor = name and redis.call('HGET', KEYS[2], '=' .. name)
  local score = successor and successor ~= id and redis.call('ZSCORE', KEYS[1], successor)
  if not (score and tonumber(score) >= tonumber(lost[i + 1])) then
    table.insert(named, string.sub(id, 1, 64))
    table.insert(named, lost[i + 1])
    table.insert(named, entry and string.sub(entry, 1, 4096))
  end
end
return named
