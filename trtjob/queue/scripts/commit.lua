-- commit: count a shard. Its manifest is in the folder, so it is done, whoever owns it now.
-- KEYS[1]  job, hash                trtjob:job:<job>
-- KEYS[2]  lease, string            trtjob:lease:<job>:<unit>     with an end: so long nobody else may claim the unit
-- KEYS[3]  done, bitmap             trtjob:job:<job>:done         a bit for each shard that is committed
-- Touches :holders, :attempts, :blame, :kills, :crashes, :live, :kinds, :events; degraded, states, queues; the owner's
--          worker
-- ARGV     holder, unit, shard, ok, failed, attempt, JSON: the failed by kind
-- Answers 2 it was the last, else 1; 0 the job is gone.
-- Sent twice: a shard's bit is set once; the holder whose commit was the last is told so again.
-- include lib/lease

give_up()
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
forget_attempts()
redis.call('HDEL', KEYS[1] .. ':live', ARGV[2])
recover()  -- the manifest is written, so storage works
if redis.call('SETBIT', KEYS[3], ARGV[3], 1) == 1 then
  local last, state = unpack(redis.call('HMGET', KEYS[1], 'last', 'state'))
  return last == ARGV[1] and state == 'finishing' and 2 or 1
end
redis.call('HINCRBY', KEYS[1], 'ok', ARGV[4])
redis.call('HINCRBY', KEYS[1], 'failed', ARGV[5])
for kind, count in pairs(cjson.decode(ARGV[7])) do redis.call('HINCRBY', KEYS[1] .. ':kinds', kind, count) end
tell('committed', ARGV[2], ARGV[6], owner(), ARGV[4] .. ' ok, ' .. ARGV[5] .. ' failed')
if redis.call('HGET', KEYS[1], 'planned') == '1'
   and redis.call('BITCOUNT', KEYS[3]) >= tonumber(redis.call('HGET', KEYS[1], 'shards'))
   and redis.call('HGET', KEYS[1], 'state') == 'running' then
  enter('finishing', 'last', ARGV[1])
  return 2
end
return 1
