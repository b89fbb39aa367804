-- settle_notice: a notice was sent, or is to be sent again later, where nobody else has taken it meanwhile.
-- KEYS[1]  notices, set             trtjob:notify[:<queue>]       delivery ids
-- KEYS[2]  notice, hash             trtjob:notice:<delivery id>
-- ARGV     delivery id, token, pause s ("": it is done)
-- Answers nothing.
-- Sent twice: it gives up the token, without which it does nothing; a notice that is gone is gone.

if ARGV[3] == '' then
  redis.call('SREM', KEYS[1], ARGV[1])
  redis.call('DEL', KEYS[2])
elseif redis.call('HGET', KEYS[2], 'token') == ARGV[2] then
  local time = redis.call('TIME')
  redis.call('HSET', KEYS[2], 'at', time[1] + time[2] / 1000000 + ARGV[3])
  redis.call('HINCRBY', KEYS[2], 'tries', 1)
  redis.call('HDEL', KEYS[2], 'token')
end
