-- check: say how far a shard is, and keep its lease.
-- KEYS[1]  job, hash                trtjob:job:<job>
-- KEYS[2]  lease, string            trtjob:lease:<job>:<unit>     with an end: so long nobody else may claim the unit
-- Touches :holders, :live
-- ARGV     holder, unit, lease ms, live "done,failed,kind=count,..."
-- Answers "go", "lost" or the state that forbids it.
-- Sent twice: it sets a lease and a value.
-- include lib/lease

if not owns() then return 'lost' end
local state = redis.call('HGET', KEYS[1], 'state') or 'gone'
if state ~= 'running' and state ~= 'planning' then return state end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[3])
redis.call('HSET', KEYS[1] .. ':live', ARGV[2], ARGV[4])
return 'go'
