-- sync: set a job's counters and committed shards to what its folder says.
-- KEYS[1]  job, hash                trtjob:job:<job>
-- KEYS[2]  lease, string            trtjob:lease:<job>:<unit>     with an end: so long nobody else may claim the unit
-- KEYS[3]  done, bitmap             trtjob:job:<job>:done         a bit for each shard that is committed
-- Touches :holders, :calls, :kinds, :live
-- ARGV     holder, unit, call, shards, images, ok, failed, JSON: the failed by kind, then the committed shards
-- Answers 1 set, 0 the unit was lost.
-- Sent twice: the job remembers it: done once more, it would undo commits that came in between.
-- include lib/lease

if not owns() then return 0 end
if was_done(ARGV[3]) then return 1 end
note_done(ARGV[3])
redis.call('HSET', KEYS[1], 'shards', ARGV[4], 'images', ARGV[5], 'ok', ARGV[6], 'failed', ARGV[7])
redis.call('DEL', KEYS[1] .. ':kinds')
for kind, count in pairs(cjson.decode(ARGV[8])) do redis.call('HSET', KEYS[1] .. ':kinds', kind, count) end
for i = 9, #ARGV do
  redis.call('SETBIT', KEYS[3], ARGV[i], 1)
  redis.call('HDEL', KEYS[1] .. ':live', string.format('shard-%05d', ARGV[i]))
end
return 1
