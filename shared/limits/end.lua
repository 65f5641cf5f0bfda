-- End a call, or give one back that was not made.
--
-- KEYS  1 calls in flight  2 learnt  3 the day's counter  4 count in all
-- ARGV  1 id of the call   2 "1": the provider took it, which ends a run of refusals
--       3 "1": it uses up no quota   4 "1": the provider may still be at work on it, so it goes on being in flight
--       5 "1": the provider said something   "0": it was called and said nothing
-- Returns how many calls in a row got no answer.
-- Counters are taken back only if they are there: one made up from nothing would keep the true one from being rebuilt.
if ARGV[4] ~= '1' then redis.call('ZREM', KEYS[1], ARGV[1]) end
if ARGV[2] == '1' then
  redis.call('HINCRBY', KEYS[2], 'taken', 1)
  redis.call('HSET', KEYS[2], 'refusals', 0)
end
if ARGV[3] == '1' then
  if redis.call('EXISTS', KEYS[3]) == 1 then redis.call('DECR', KEYS[3]) end
  if redis.call('EXISTS', KEYS[4]) == 1 then redis.call('DECR', KEYS[4]) end
end
if ARGV[5] == '0' then return redis.call('HINCRBY', KEYS[2], 'silent', 1) end
if ARGV[5] == '1' then redis.call('HSET', KEYS[2], 'silent', 0) end
return 0
