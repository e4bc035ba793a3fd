-- One page of the workers that are or were there, in no order. Reads only.
-- KEYS: workers, names, ready
-- ARGV: cursor, how many fields to look at, forget in ms
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local page = redis.call('HSCAN', KEYS[2], ARGV[1], 'COUNT', ARGV[2])
local members = { now, page[1] }
for i = 1, #page[2], 2 do
  local id = page[2][i]
  local score = #id == 32 and redis.call('ZSCORE', KEYS[1], id)
  if score and tonumber(score) >= now - ARGV[3] then
    table.insert(members, id)
    table.insert(members, score)
    table.insert(members, redis.call('ZSCORE', KEYS[3], id) or '0')
    table.insert(members, string.sub(page[2][i + 1], 1, 4096))
  end
end
return members
