-- take_notice: take a notice for as long as a send may last: until then nobody else sends it.
-- KEYS[1]  notices, set             trtjob:notify[:<queue>]       delivery ids
-- KEYS[2]  notice, hash             trtjob:notice:<delivery id>
-- ARGV     delivery id, token, lease s
-- Answers its fields; nothing where it is not due, or gone.
-- Sent twice: the taker's token is in the notice: it gets it again.

if redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('SREM', KEYS[1], ARGV[1])
  return nil
end
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
if redis.call('HGET', KEYS[2], 'token') == ARGV[2] then return redis.call('HGETALL', KEYS[2]) end
if (tonumber(redis.call('HGET', KEYS[2], 'at')) or 0) > now then return nil end
redis.call('HSET', KEYS[2], 'at', now + ARGV[3], 'token', ARGV[2])
return redis.call('HGETALL', KEYS[2])
