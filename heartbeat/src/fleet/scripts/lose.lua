-- A worker that somebody has seen to be gone is lost as of now, however long its promise.
-- KEYS: stat, workers, names, ready, one for each queue
-- ARGV: id, promise in ms, worker, host, forget in ms, for how long it has been silent in ms
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local id = ARGV[1]

-- First, because a server that is out of memory refuses what follows.
for i = 4, #KEYS do redis.call('ZREM', KEYS[i], id) end
redis.call('DEL', KEYS[1])

-- One that is lost already stays so from then on.
local lost_at = math.min(tonumber(redis.call('ZSCORE', KEYS[2], id) or now), now)
local lead = math.max(ARGV[6] - (now - lost_at), 0)
redis.call('ZADD', KEYS[2], string.format('%.0f', lost_at), id)
redis.call('HSET', KEYS[3], id, string.format('%s %.0f\n%s\n%s', ARGV[2], lead, ARGV[3], ARGV[4]))
-- The name stays whose it is: somebody may have started anew under it.
redis.call('HSETNX', KEYS[3], '=' .. ARGV[3], id)

-- As long as after a beat.
local keep = 101 * ARGV[2] + ARGV[5]
for i = 2, 3 do
  if redis.call('PTTL', KEYS[i]) < keep then redis.call('PEXPIRE', KEYS[i], 2 * keep) end
end
return now
