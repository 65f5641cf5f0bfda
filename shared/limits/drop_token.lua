-- Drop the token if it still is the one that was refused.
-- KEYS 1 token   ARGV 1 fingerprint of the refused one
if redis.call('HGET', KEYS[1], 'fingerprint') == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
