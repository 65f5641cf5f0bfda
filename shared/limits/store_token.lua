-- Keep a token unless one that expires later is there.
-- KEYS 1 token   ARGV 1 sealed token  2 fingerprint  3 expires at, s  4 life, s
local stored = tonumber(redis.call('HGET', KEYS[1], 'expires_at') or '0')
if stored > tonumber(ARGV[3]) then return 0 end
redis.call('HSET', KEYS[1], 'sealed', ARGV[1], 'fingerprint', ARGV[2], 'expires_at', ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[4])
return 1
