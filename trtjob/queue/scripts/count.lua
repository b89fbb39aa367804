-- count: count the messages of a job that wait.
-- KEYS[1]  list                     rq:queue:<queue>              RQ's: the messages that wait
-- ARGV     job
-- Answers how many.
-- Sent twice: it reads.
-- include lib/messages

local count = 0
for _, message in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
  if job_of(message) == ARGV[1] then count = count + 1 end
end
return count
