-- renew: keep a lease, and say how far its unit is.
-- KEYS[1]  job, hash                trtjob:job:<job>
-- KEYS[2]  lease, string            trtjob:lease:<job>:<unit>     with an end: so long nobody else may claim the unit
-- Touches :holders, :live
-- ARGV     holder, unit, lease ms, live "done,failed,kind=count,..." ("": as it was)
-- Answers "lost" or the job's state.
-- Sent twice: it sets a lease and a value.
-- include lib/lease

if not owns() then return 'lost' end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[3])
local state = redis.call('HGET', KEYS[1], 'state') or 'gone'
if ARGV[4] ~= '' and (state == 'running' or state == 'planning') then
  redis.call('HSET', KEYS[1] .. ':live', ARGV[2], ARGV[4])
end
return state
