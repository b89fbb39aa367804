-- prioritize: change a job's priority.
-- KEYS[1]  job, hash                trtjob:job:<job>
-- Touches :events
-- ARGV     priority
-- Answers nothing.
-- Sent twice: it tells of it only where the priority is another one.
-- include lib/job

local before = redis.call('HGET', KEYS[1], 'priority')
if not before or before == ARGV[1] then return end
redis.call('HSET', KEYS[1], 'priority', ARGV[1])
tell('priority', '', '', '', ARGV[1])
