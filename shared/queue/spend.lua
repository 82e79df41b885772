-- Adds to what callers have spent, whether or not it is too much: who adds has let them already.
-- KEYS  one for each caller: the moment, in µs, at which all it spent will have been paid back
-- ARGV  for each caller: how much later, in µs, that moment becomes
-- Answers for each caller how far ahead of now the moment is, in µs.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local answer = {}
for place, key in ipairs(KEYS) do
  local known = tonumber(redis.call('GET', key) or 0)
  local ends = math.max(known, now) + tonumber(ARGV[place])
  if ends > known then
    redis.call('SET', key, string.format('%.0f', ends), 'PX', math.ceil((ends - now) / 1000) + 1)
  end
  answer[place] = ends - now
end
return answer
