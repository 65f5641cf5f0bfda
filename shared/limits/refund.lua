-- Take a call that was not made back from the count of its day, if that is still there: a count made up from nothing
-- would keep the true one from being rebuilt.
-- KEYS 1 the day's counter
if redis.call('EXISTS', KEYS[1]) == 1 then return redis.call('DECR', KEYS[1]) end
return 0
