-- reorder: give a job's messages the places of its present class.
-- KEYS[1]  list                     rq:queue:<queue>              RQ's: the messages that wait
-- Touches the priority of each job that waits
-- ARGV     job
-- Answers nothing.
-- Sent twice: the same places again.
-- include lib/insert

local messages = {}
for _, message in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
  if job_of(message) == ARGV[1] then
    redis.call('LREM', KEYS[1], 1, message)
    messages[#messages + 1] = message
  end
end
if #messages > 0 then insert(messages, false, math.huge) end
