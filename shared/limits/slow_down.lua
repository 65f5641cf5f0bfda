-- The provider refused a call for its rate: use a smaller share of the pace, for all workers at once.
--
-- KEYS  1 pause  2 learnt
-- ARGV  1 smallest share worth using   2 by how much the share grows, per us
-- Gives {share in millionths, refusals in a row}.
--
-- How much smaller depends on how many calls the provider took since its last refusal: one late packet in a thousand
-- calls is not a wrong limit. The first of a kind costs 2 %, one within a thousand calls 5 %, one within a hundred
-- 10 %, a second without any call, and the knowledge that this share was too much: for an hour the lane stays 3 % below it. One cut
-- a second at most: refusals of calls that were under way together say the same thing.
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local field = redis.call('HMGET', KEYS[2], 'share', 'at', 'cap', 'cap_until', 'cut_at', 'taken')
local share, cap = 1, 1
if field[4] and tonumber(field[4]) > now then cap = tonumber(field[3]) end
if field[1] then share = math.min(cap, tonumber(field[1]) + (now - tonumber(field[2])) * tonumber(ARGV[2])) end
local refusals = redis.call('HINCRBY', KEYS[2], 'refusals', 1)
local cut_at = tonumber(field[5] or '0')
if now - cut_at < 1000000 then return {math.floor(share * 1000000), refusals} end

local taken, smaller = tonumber(field[6] or '0'), 0.98
if now - cut_at < 3600000000 then
  if taken < 100 then
    smaller = 0.9
    redis.call('HSET', KEYS[2], 'cap', 0.97 * share, 'cap_until', string.format('%.0f', now + 3600000000))
    redis.call('SET', KEYS[1], '1', 'PX', 1000)
  elseif taken < 1000 then smaller = 0.95 end
end
share = math.max(tonumber(ARGV[1]), share * smaller)
redis.call('HSET', KEYS[2], 'share', share, 'at', string.format('%.0f', now), 'cut_at', string.format('%.0f', now), 'taken', 0)
return {math.floor(share * 1000000), refusals}
