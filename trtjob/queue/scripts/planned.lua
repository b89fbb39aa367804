-- planned: say that the plan is complete.
-- KEYS[1]  job, hash                trtjob:job:<job>
-- KEYS[2]  lease, string            trtjob:lease:<job>:<unit>     with an end: so long nobody else may claim the unit
-- KEYS[3]  done, bitmap             trtjob:job:<job>:done         a bit for each shard that is committed
-- Touches :holders, :attempts, :blame, :kills, :crashes, :calls, :events; states, queues
-- ARGV     holder, unit, attempt
-- Answers "lost" or the job's state: finishing where all shards are committed.
-- Sent twice: it tells of it once for each holder; its answer is the job's state.
-- include lib/lease

if not owns() then return 'lost' end
forget_attempts()
redis.call('HSET', KEYS[1], 'planned', '1')
local shards, images = unpack(redis.call('HMGET', KEYS[1], 'shards', 'images'))
if not was_done(ARGV[1]) then
  note_done(ARGV[1])
  tell('planned', ARGV[2], ARGV[3], owner(), images .. ' images, ' .. shards .. ' shards')
end
if redis.call('HGET', KEYS[1], 'state') == 'planning' then enter('running') end
if redis.call('HGET', KEYS[1], 'state') == 'running'
   and redis.call('BITCOUNT', KEYS[3]) >= tonumber(shards) then
  enter('finishing')
end
return redis.call('HGET', KEYS[1], 'state')
