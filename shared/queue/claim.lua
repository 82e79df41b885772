-- Removes due ids and their blobs from the lanes, as many as the caller has room for.
-- KEYS  one sorted set for each lane in the order of priority, one bell for each, the set of paused lanes
-- ARGV  ids at most | shared room | room of each lane's floor | weight of each lane | shared slots it holds
-- Answers for each lane: whether due ids are left, ms until the next one is due (-1: none), id, blob, id, blob, …

local LOOK_AT_MOST = 10000 -- ids that stock workers have in progress stay in the lane; look past so many
local PAGE = 1000 -- as many arguments as `unpack` is asked for
local FAR_MS = 3600000

local limit, shared = tonumber(ARGV[1]), tonumber(ARGV[2])
local lanes = (#KEYS - 1) / 2
local paused = KEYS[#KEYS]

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local now_text = string.format('%.0f', now)

local function floor_room(lane) return tonumber(ARGV[2 + lane]) end
local function weight(lane) return tonumber(ARGV[2 + lanes + lane]) end

local function prefixed(prefix, ids)
  local keys = {}
  for place, id in ipairs(ids) do keys[place] = prefix .. id end
  return keys
end

-- due ids that no stock worker has in progress, the earliest first
local function claimable(lane, wanted)
  local found, seen, page = {}, 0, math.min(wanted, PAGE)
  while #found < wanted and seen < LOOK_AT_MOST do
    local ids = redis.call('ZRANGEBYSCORE', lane, '-inf', now_text, 'LIMIT', seen, page)
    if #ids == 0 then break end
    local progress = prefixed('arq:in-progress:', ids)
    local none_busy = redis.call('EXISTS', unpack(progress)) == 0
    for place, id in ipairs(ids) do
      if #found < wanted and (none_busy or redis.call('EXISTS', progress[place]) == 0) then
        found[#found + 1] = id
      end
    end
    if #ids < page then break end
    seen, page = seen + #ids, PAGE
  end
  return found
end

local function remove(lane, ids, into)
  for first = 1, #ids, PAGE do
    local part = {}
    for place = first, math.min(first + PAGE - 1, #ids) do part[#part + 1] = ids[place] end
    -- A stock worker watches this key between its look at the lane and its start: touching it
    -- undoes that start. When memory is short MSET is refused; then the start finds no blob.
    local progress, touched = prefixed('arq:in-progress:', part), {}
    for place, key in ipairs(progress) do
      touched[2 * place - 1], touched[2 * place] = key, ''
    end
    redis.pcall('MSET', unpack(touched))
    redis.call('DEL', unpack(progress))
    local jobs = prefixed('arq:job:', part)
    local blobs = redis.call('MGET', unpack(jobs))
    redis.call('DEL', unpack(jobs))
    redis.call('ZREM', lane, unpack(part))
    for place, id in ipairs(part) do
      into[#into + 1] = id
      into[#into + 1] = blobs[place]
    end
  end
end

local due, taken, open = {}, {}, {}
for lane = 1, lanes do
  open[lane] = redis.call('SISMEMBER', paused, KEYS[lane]) == 0
  -- one more than could be taken tells whether something is left
  local wanted = math.min(limit, floor_room(lane) + shared) + 1
  due[lane] = open[lane] and claimable(KEYS[lane], wanted) or {}
  taken[lane] = 0
end

-- The same rule as `deal` in slots.py: floors first, then each shared slot to the lane that, with
-- it, holds the fewest of them for its weight; the first in priority where lanes are equal.
for lane = 1, lanes do
  taken[lane] = math.min(#due[lane], floor_room(lane), limit)
  limit = limit - taken[lane]
end
local used = {}
for lane = 1, lanes do used[lane] = tonumber(ARGV[2 + 2 * lanes + lane]) end
for _ = 1, math.min(shared, limit) do
  local chosen, least = nil, math.huge
  for lane = 1, lanes do
    local load = (used[lane] + 1) / weight(lane)
    if #due[lane] > taken[lane] and load < least then chosen, least = lane, load end
  end
  if not chosen then break end
  taken[chosen] = taken[chosen] + 1
  used[chosen] = used[chosen] + 1
end

-- When memory is short every ring is refused, and lanes that no ring can enter look like idle ones.
-- This changes nothing, but it too is refused then: the worker learns that it has to do without.
local takes = 0
for lane = 1, lanes do takes = takes + taken[lane] end
if takes == 0 then redis.call('SETRANGE', 'rl:room', 0, '') end

local answer = {}
for lane = 1, lanes do
  local ids, left = {}, #due[lane] > taken[lane]
  for place = 1, taken[lane] do ids[place] = due[lane][place] end
  local wait = -1
  if open[lane] then
    local next_due = redis.call(
      'ZRANGEBYSCORE', KEYS[lane], '(' .. now_text, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if next_due[2] then wait = math.min(math.ceil(tonumber(next_due[2]) - now), FAR_MS) end
  end
  local one = { left and 1 or 0, wait }
  remove(KEYS[lane], ids, one)
  -- a token with nothing behind it would wake somebody for nothing
  if not left then redis.call('DEL', KEYS[lanes + lane]) end
  answer[lane] = one
end
return answer
