-- end: end a job that its finisher has finished.
-- KEYS[1]  job, hash                trtjob:job:<job>
-- KEYS[2]  lease, string            trtjob:lease:<job>:<unit>     with an end: so long nobody else may claim the unit
-- Touches :holders, :attempts, :blame, :kills, :crashes, :events, :aside; states, queues, degraded, notices, notice
-- ARGV     holder, unit, epoch, target, its detail, then field, value, ...
-- Answers 1 ended by this holder, 0 another has the unit, or the job is in another state or round.
-- Sent twice: the job knows which holder ended it, and says so again.
-- include lib/lease

if redis.call('HGET', KEYS[1], 'ended_by') == ARGV[1] then return 1 end
local state, epoch = unpack(redis.call('HMGET', KEYS[1], 'state', 'epoch'))
if not owns() or state ~= 'finishing' or epoch ~= ARGV[3] then return 0 end
enter(ARGV[4], 'ended_by', ARGV[1], unpack(ARGV, 6))
forget_attempts()
announce()
tell('finished', '', '', '', ARGV[5])
return 1
