-- The incarnations that started last under these names, each with its score. Reads only.
-- KEYS: workers, names
-- ARGV: the names
local found = { redis.call('TIME'), {} }
for i = 1, #ARGV do
  local id = redis.call('HGET', KEYS[2], '=' .. ARGV[i])
  local score = id and redis.call('ZSCORE', KEYS[1], id)
  if score then
    table.insert(found[2], string.sub(id, 1, 64))
    table.insert(found[2], score)
  end
end
return found
