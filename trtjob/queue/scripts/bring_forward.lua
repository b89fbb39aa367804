-- bring_forward: put the first message that is of none of these jobs before all.
-- KEYS[1]  list                     rq:queue:<queue>              RQ's: the messages that wait
-- ARGV     jobs
-- Answers 1, 0 where there is none.
-- Sent twice: what is before all is put there again.
-- include lib/messages

local passed = {}
for _, job in ipairs(ARGV) do passed[job] = true end
for _, message in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
  if not passed[job_of(message)] then
    redis.call('LREM', KEYS[1], 1, message)
    redis.call('LPUSH', KEYS[1], message)
    return 1
  end
end
return 0
