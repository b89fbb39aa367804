-- note: set fields of a job.
-- KEYS[1]  job, hash                trtjob:job:<job>
-- KEYS[2]  lease, string            trtjob:lease:<job>:<unit>     with an end: so long nobody else may claim the unit
-- Touches :holders
-- ARGV     holder, unit, field, value, ...
-- Answers 1 set, 0 the unit was lost.
-- Sent twice: it sets values, where the holder still is one.
-- include lib/lease

if not owns() then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
return 1
