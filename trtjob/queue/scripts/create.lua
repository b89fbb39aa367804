-- create: enter a job, unless it is there.
-- KEYS[1]  job, hash                trtjob:job:<job>
-- Touches jobs, states, queues, degraded, leases, every part of an earlier life's job; events
-- ARGV     call, spec, submitted at, state, queue, "1" where its folder is new, what the event says, then field, value,
--          ...
-- Answers 1 made by this call, 0 it is there.
-- Sent twice: the job has the name of the call that made it: the same call made it, another finds it there.
-- include lib/job

local spec, made_by, created_at, state = unpack(redis.call('HMGET', KEYS[1], 'spec', 'made_by', 'created_at', 'state'))
if made_by == ARGV[1] then return 1 end
if spec and created_at == ARGV[3] and not (ARGV[6] == '1' and has_ended[state]) then return 0 end
forget()
redis.call('HSET', KEYS[1], 'spec', ARGV[2], 'made_by', ARGV[1], 'created_at', ARGV[3], 'queue', ARGV[5])
enter(ARGV[4], unpack(ARGV, 8))
redis.call('ZADD', KEY.jobs, ARGV[3], job_id())
tell('submitted', '', '', '', ARGV[7])
return 1
