-- add_shards: count shards that the planner has written.
-- KEYS[1]  job, hash                trtjob:job:<job>
-- KEYS[2]  lease, string            trtjob:lease:<job>:<unit>     with an end: so long nobody else may claim the unit
-- Touches :holders
-- ARGV     holder, unit, first shard, shards, images
-- Answers 1 counted, 0 the unit was lost.
-- Sent twice: it adds those beyond the last that is counted.
-- include lib/lease

if not owns() then return 0 end
local shards = ARGV[3] + ARGV[4]
if shards > tonumber(redis.call('HGET', KEYS[1], 'shards')) then
  redis.call('HSET', KEYS[1], 'shards', shards)
  redis.call('HINCRBY', KEYS[1], 'images', ARGV[5])
end
return 1
