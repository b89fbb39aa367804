-- renew: keep a lease.
-- KEYS[1]  job, hash                trtjob:job:<job>
-- KEYS[2]  lease, string            trtjob:lease:<job>:<unit>     with an end: so long nobody else may claim the unit
-- Touches :holders
-- ARGV     holder, unit, lease ms
-- Answers "lost" or the job's state.
-- Sent twice: it sets a lease.
-- include lib/lease

if not owns() then return 'lost' end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[3])
return redis.call('HGET', KEYS[1], 'state') or 'gone'
