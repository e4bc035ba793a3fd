-- Workers that have stopped are no longer there: those that take work from the same queues, at once.
-- KEYS: workers, names, ready, one for each queue, then the stat of each worker
-- ARGV: how many queues, then of each worker its id and its name
local ids, leaving, stats = {}, {}, {}
for i = 2, #ARGV, 2 do
  local id, name = ARGV[i], '=' .. ARGV[i + 1]
  table.insert(ids, id)
  table.insert(leaving, id)
  if redis.call('HGET', KEYS[2], name) == id then table.insert(leaving, name) end
end
for i = 4 + ARGV[1], #KEYS do table.insert(stats, KEYS[i]) end

redis.call('DEL', unpack(stats))
redis.call('HDEL', KEYS[2], unpack(leaving))
redis.call('ZREM', KEYS[1], unpack(ids))
for i = 3, 3 + ARGV[1] do redis.call('ZREM', KEYS[i], unpack(ids)) end
return #ids
