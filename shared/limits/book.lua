-- Book the next slot of one endpoint of one account, or say how long there is none.
--
-- KEYS  1 pace (instant of the next free slot, us)  2 pause  3 prefix of the day counters
-- ARGV  1 interval between slots, us  2 furthest slot that may be booked, us from now
--       3 silence after a lost state, us  4 calls a day, -1 for no limit
-- Gives {answer, microseconds, day}, the day of the slot in days since 1970-01-01 in Asia/Shanghai.
--
-- GCRA with a burst of one: slots lie one interval apart and are given out in order. The clock is the server's, so
-- skewed workers change nothing. A slot that is booked and not used is lost: one interval idle, no more.
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]

local paused = redis.call('PTTL', KEYS[2])
if paused > 0 then return {'paused', paused * 1000, 0} end

-- State that is missing (Redis restarted empty) or absurd (a replica with another clock took over) hides what was
-- called a moment ago: stay silent for one window.
local slot = tonumber(redis.call('GET', KEYS[1]) or '0')
if slot == 0 or slot - now > 3600000000 then slot = now + tonumber(ARGV[3]) end
if slot < now then slot = now end

-- A call counts on the day on which it is made. The counter is rebuilt from the attempts before anything is booked on
-- a day that has none.
local day = math.floor((slot / 1000000 + 28800) / 86400)
local day_key = KEYS[3] .. day
local used = redis.call('GET', day_key)
if not used then return {'uncounted', 0, day} end
local limit = tonumber(ARGV[4])
if limit >= 0 and tonumber(used) >= limit then return {'day_used_up', 0, day} end
if slot - now > tonumber(ARGV[2]) then return {'later', slot - now, day} end

redis.call('SET', KEYS[1], string.format('%.0f', slot + tonumber(ARGV[1])))
redis.call('INCR', day_key)
return {'go', slot - now, day}
