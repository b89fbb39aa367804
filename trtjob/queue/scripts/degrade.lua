-- degrade: say what is failing outside a job.
-- KEYS[1]  job, hash                trtjob:job:<job>
-- Touches degraded; :events
-- ARGV     what fails; "": nothing any more
-- Answers nothing.
-- Sent twice: it tells of it only where it is new.
-- include lib/job

local state = redis.call('HGET', KEYS[1], 'state')
if not state or has_ended[state] then return end
if ARGV[1] == '' then return recover() end
if redis.call('SADD', KEY.degraded, job_id()) == 1 then tell('degraded', '', '', '', ARGV[1]) end
redis.call('HSET', KEYS[1], 'degraded', ARGV[1])
