-- Book the soonest slot of one endpoint at any of several accounts, or say how long there is none.
--
-- KEYS  seven for each account: pace (instant of the next free slot, us), pause, prefix of the day counters, count in
--       all, calls in flight (sorted set: id -> given up for lost at, us), learnt (hash), prefix of the counts a second
-- ARGV  1 furthest slot that may be booked, us from now   2 soonest slot, us from now
--       3 silence after a lost state, us                   4 offset of the provider's day from UTC, s
--       5 id of the call    6 life of a call, us           7 lane: "bulk" or "interactive"
--       8 bulk gets at least one slot of so many, 0: none is kept for it
--       9 by how much the learnt share grows, per us
--       then four for each account: interval between slots, us; calls a day, in all, in flight (-1: no limit)
-- Gives {"go", us until the slot, account from 1, day, answers}, {"uncounted", 0, account, day, which counter}, or
-- {"none", us until the next try (-1: not before an account has quota), 0, day of an account whose day is used up,
-- answers}. A day counts from 1970-01-01 in the provider's zone.
-- `answers` holds one letter for each account: g bookable, l later, p paused, b all calls in flight, d day used up,
-- t used up in all.
--
-- GCRA with a burst of one: slots lie one interval apart and are given out in order. The clock is the server's, so
-- skewed workers change nothing. A slot that is booked and not used is lost: one interval idle, no more.
--
-- Bulk may book the next slot only shortly before it begins; interactive books as far ahead as it is willing to wait.
-- So a person takes the next slot whatever stands in bulk, and bulk takes every slot that nobody else has taken. When
-- all of them are taken, every so-many-th is bulk's: then it may line up behind the others.
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local reach, lead, silence = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local lane, share_of_bulk = ARGV[7], tonumber(ARGV[8])

local function learnt_share(key)
  local field = redis.call('HMGET', key, 'share', 'at', 'cap', 'cap_until')
  if not field[1] then return 1 end
  local share = tonumber(field[1]) + (now - tonumber(field[2])) * tonumber(ARGV[9])
  local cap = 1
  if field[4] and tonumber(field[4]) > now then cap = tonumber(field[3]) end
  if share > cap then share = cap end
  return share
end

local offers, answers, soonest, retry, empty_day = {}, '', nil, nil, 0
local function refuse(letter, wait)
  answers = answers .. letter
  if wait and (not retry or wait < retry) then retry = wait end
end

for i = 1, #KEYS / 7 do
  local k, a = (i - 1) * 7, 9 + (i - 1) * 4
  local day_limit, total_limit, cap = tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3]), tonumber(ARGV[a + 4])
  local interval = tonumber(ARGV[a + 1]) / learnt_share(KEYS[k + 6])

  -- State that is missing (Redis restarted empty) or absurd (a replica with another clock took over) hides what was
  -- called a moment ago: stay silent for one window.
  local slot = tonumber(redis.call('GET', KEYS[k + 1]) or '0')
  if slot == 0 or slot - now > 60000000 + 2 * interval then
    slot = now + silence
    redis.call('SET', KEYS[k + 1], string.format('%.0f', slot))
  end
  if slot < now + lead then slot = now + lead end

  -- A call counts on the day on which it is made. A counter that is missing is rebuilt from the attempts before
  -- anything is booked on it, unless the day before has one: then nothing was lost, the day is new.
  local day = math.floor((slot / 1000000 + tonumber(ARGV[4])) / 86400)
  local used = redis.call('GET', KEYS[k + 3] .. day)
  if not used then
    if redis.call('EXISTS', KEYS[k + 3] .. (day - 1)) == 0 then return {'uncounted', 0, i, day, 'day'} end
    redis.call('SET', KEYS[k + 3] .. day, '0', 'EX', 172800)
    used = '0'
  end
  local used_in_all = '0'
  if total_limit >= 0 then
    used_in_all = redis.call('GET', KEYS[k + 4])
    if not used_in_all then return {'uncounted', 0, i, day, 'total'} end
  end

  local paused = redis.call('PTTL', KEYS[k + 2])
  redis.call('ZREMRANGEBYSCORE', KEYS[k + 5], '-inf', now)
  local may_line_up = lane == 'bulk' and share_of_bulk > 0
    and tonumber(redis.call('HGET', KEYS[k + 6], 'since_bulk') or '0') >= share_of_bulk - 1
  if day_limit >= 0 and tonumber(used) >= day_limit then
    refuse('d')
    empty_day = day
  elseif total_limit >= 0 and tonumber(used_in_all) >= total_limit then refuse('t')
  elseif paused > 0 then refuse('p', paused * 1000)
  elseif cap >= 0 and redis.call('ZCARD', KEYS[k + 5]) >= cap then refuse('b', 20000)
  elseif slot - now > reach and not may_line_up then
    -- Bulk looks again at every slot: its share may come before the line of people ends.
    refuse('l', lane == 'bulk' and math.min(slot - now - reach, interval) or slot - now - reach)
  else
    answers = answers .. 'g'
    offers[#offers + 1] = {i, slot, day, interval, total_limit}
    if not soonest or slot < soonest then soonest = slot end
  end
end

if not soonest then return {'none', retry and math.ceil(retry) or -1, 0, empty_day, answers} end

-- Of those that could go at about the same time, the first in the caller's order.
for _, offer in ipairs(offers) do
  local i, slot, day, interval, total_limit = unpack(offer)
  if slot <= soonest + lead then
    local k = (i - 1) * 7
    redis.call('SET', KEYS[k + 1], string.format('%.0f', slot + interval))
    redis.call('INCR', KEYS[k + 3] .. day)
    if redis.call('EXISTS', KEYS[k + 4]) == 1 then redis.call('INCR', KEYS[k + 4]) end
    local second = KEYS[k + 7] .. math.floor(slot / 1000000)
    redis.call('INCR', second)
    redis.call('EXPIRE', second, 60)
    redis.call('ZADD', KEYS[k + 5], string.format('%.0f', slot + tonumber(ARGV[6])), ARGV[5])
    if lane == 'bulk' then redis.call('HSET', KEYS[k + 6], 'since_bulk', 0)
    else redis.call('HINCRBY', KEYS[k + 6], 'since_bulk', 1) end
    return {'go', math.floor(slot - now), i, day, answers, empty_day}
  end
end
