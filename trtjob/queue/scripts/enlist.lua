-- enlist: enter a job again in the lists where it belongs: one was lost.
-- KEYS[1]  job, hash                trtjob:job:<job>
-- Touches jobs, states, queues
-- ARGV     none
-- Answers nothing.
-- Sent twice: it enters the job where it is.
-- include lib/job

local state, created_at = unpack(redis.call('HMGET', KEYS[1], 'state', 'created_at'))
if not state or not tonumber(created_at) then return end
redis.call('ZADD', KEY.jobs, created_at, job_id())
enter(state)
