-- claim: give a unit of a job to a worker. A holder is "<token>.<call>|<owner>".
-- KEYS[1]  job, hash                trtjob:job:<job>
-- KEYS[2]  lease, string            trtjob:lease:<job>:<unit>     with an end: so long nobody else may claim the unit
-- KEYS[3]  done, bitmap             trtjob:job:<job>:done         a bit for each shard that is committed
-- KEYS[4]  worker, hash             trtjob:worker:<worker>        a field unit:<job>:<unit> for each that it holds
-- KEYS[5]  fence, integer           trtjob:fence                  the last token
-- Touches :holders, :attempts, :blame, :crashes, :events; the sleeper's worker
-- ARGV     unit, shard (-1: none), owner, lease ms, ",allowed,states,", worker ttl s, call, the owner's queue ("": any)
-- Answers {reason} or {"go", token, attempt, blame, "|node|..." that it crashed on}.
-- Sent twice: the holder has the name of the call: the same call gets its claim again, and no attempt counts.
-- include lib/job

local function grant(token)
  local holder = token .. '.' .. ARGV[7] .. '|' .. ARGV[3]
  redis.call('SET', KEYS[2], holder, 'PX', ARGV[4])
  redis.call('HSET', KEYS[1] .. ':holders', ARGV[1], holder)
  redis.call('HSET', KEYS[4], 'unit:' .. job_id() .. ':' .. ARGV[1], token)
  redis.call('EXPIRE', KEYS[4], ARGV[6])
  local attempt = tonumber(redis.call('HGET', KEYS[1] .. ':attempts', ARGV[1]))
  local blame = redis.call('HGET', KEYS[1] .. ':blame', ARGV[1]) or ''
  return {'go', tonumber(token), attempt, blame, redis.call('HGET', KEYS[1] .. ':crashes', ARGV[1]) or ''}
end
local state, queue, shards = unpack(redis.call('HMGET', KEYS[1], 'state', 'queue', 'shards'))
if not state then return {'gone'} end
local before = redis.call('HGET', KEYS[1] .. ':holders', ARGV[1])
if before then
  local token, call = string.match(before, '^(%d+)%.(%x+)|')
  if call == ARGV[7] then return grant(token) end
end
if queue and queue ~= '' and ARGV[8] ~= '' and queue ~= ARGV[8] then return {'elsewhere'} end
if not string.find(ARGV[5], ',' .. state .. ',', 1, true) then return {state} end
local shard = tonumber(ARGV[2])
if shard >= tonumber(shards) then return {'unknown'} end
if shard >= 0 and redis.call('GETBIT', KEYS[3], shard) == 1 then return {'committed'} end
if redis.call('PTTL', KEYS[2]) >= 0 then return {'busy'} end  -- none of ours is without an end
if before then  -- it sleeps, or its node has lost power: an earlier death is not its
  local spent = redis.call('HGET', KEYS[1] .. ':attempts', ARGV[1]) or ''
  local sleeper = string.match(before, '([^|]*)$')
  tell('lost', ARGV[1], spent, sleeper, 'its lease ran out')
  redis.pcall('HDEL', KEY.worker .. sleeper, 'unit:' .. job_id() .. ':' .. ARGV[1])
  redis.call('HDEL', KEYS[1] .. ':blame', ARGV[1])
end
local attempt = redis.call('HINCRBY', KEYS[1] .. ':attempts', ARGV[1], 1)
if attempt > 1 then redis.call('HINCRBY', KEYS[1], 'retries', 1) end
tell('taken', ARGV[1], attempt, ARGV[3], '')
local token = redis.pcall('INCR', KEYS[5])
if type(token) ~= 'number' then  -- somebody has put something else there
  redis.call('SET', KEYS[5], redis.call('TIME')[1])
  token = redis.call('INCR', KEYS[5])
end
return grant(token)
