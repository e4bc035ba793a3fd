-- How many are fresh: of all workers, of those that take work, and of each queue's. Reads only.
-- KEYS: workers, ready, one for each queue
-- ARGV: forget in ms
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local counts = { now, redis.call('ZCOUNT', KEYS[1], now - ARGV[1], now) }
for i = 1, #KEYS do counts[i + 2] = redis.call('ZCOUNT', KEYS[i], '(' .. now, '+inf') end
return counts
