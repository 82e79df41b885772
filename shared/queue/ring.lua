-- Puts ids into their lanes and rings the bell of each lane that got one.
-- KEYS  one sorted set for each lane, then one bell (a list) for each lane
-- ARGV  bell tokens at most | ms ahead of its due time that a ring is worth a token
--       ms a blob outlives its due time | blob before the id | blob between id and enqueue time
--       then for each ring: lane number, id, due time in Unix ms or '' for now

local most_tokens, ahead, life = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local before, after = ARGV[4], ARGV[5]
local lanes = #KEYS / 2

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function whole(number)
  return string.format('%.0f', number)
end

-- msgpack's uint 64
local enqueued, rest = {}, now
for place = 8, 1, -1 do
  enqueued[place] = string.char(rest % 256)
  rest = math.floor(rest / 256)
end
after = after .. table.concat(enqueued)

local tokens = {}
for first = 6, #ARGV, 3 do
  local lane, id = tonumber(ARGV[first]), ARGV[first + 1]
  local due = tonumber(ARGV[first + 2]) or now
  -- LT: an id that waits already keeps the earlier due time, and then its blob too
  if redis.call('ZADD', KEYS[lane], 'LT', 'CH', whole(due), id) == 1 then
    local expires = math.max(due - now, 0) + life
    redis.call('SET', 'arq:job:' .. id, before .. id .. after, 'PX', whole(expires))
  end
  if due - now <= ahead then
    tokens[lane] = (tokens[lane] or 0) + 1
  end
end

for lane, wanted in pairs(tokens) do
  local bell = KEYS[lanes + lane]
  for _ = 1, math.min(wanted, most_tokens - redis.call('LLEN', bell)) do
    redis.call('RPUSH', bell, '1')
  end
end
return now
