"""Scripts about a unit of work: who has it, how far it is, how it ends; what `trtjob.queue.scripts` says holds here."""

from trtjob.queue.scripts import JOB_STEPS

# Takes KEYS[1] job, KEYS[2] lease, ARGV[1] holder, ARGV[2] unit, as every script does that begins with it.
_OWNERSHIP = (
    JOB_STEPS
    + """
local function owner() return string.match(ARGV[1], '([^|]*)$') end
local function owns() return redis.call('HGET', KEYS[1] .. ':holders', ARGV[2]) == ARGV[1] end
local function give_up()
  redis.call('HDEL', KEYS[1] .. ':holders', ARGV[2])
  redis.call('DEL', KEYS[2])
  -- The owner's own record says what it holds: "unit:<job>:<unit>".
  redis.pcall('HDEL', 'trtjob:worker:' .. owner(), 'unit:' .. job_id() .. ':' .. ARGV[2])
end
local function forget_attempts()  -- the unit is done
  for _, part in ipairs({'blame', 'attempts', 'kills', 'crashes'}) do
    redis.call('HDEL', KEYS[1] .. ':' .. part, ARGV[2])
  end
end
local function take_back()  -- the attempt does not count
  if redis.call('HINCRBY', KEYS[1] .. ':attempts', ARGV[2], -1) <= 0 then
    redis.call('HDEL', KEYS[1] .. ':attempts', ARGV[2])
  end
end
"""
)

# A holder is "<token>.<call>|<owner>".
# KEYS job, lease, done, worker, fence
# ARGV unit, shard (-1: none), owner, lease ms, ",allowed,states,", worker ttl s, call, the owner's queue ("": any)
# -> {reason} or {"go", token, attempt, blame, "|node|..." that it crashed on}
CLAIM = (
    JOB_STEPS
    + """
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
  redis.pcall('HDEL', 'trtjob:worker:' .. sleeper, 'unit:' .. job_id() .. ':' .. ARGV[1])
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
"""
)

# KEYS job, lease   ARGV holder, unit, lease ms, live "done,failed,kind=count,..."
# -> "go", "lost" or the state that forbids it
CHECK = (
    _OWNERSHIP
    + """
if not owns() then return 'lost' end
local state = redis.call('HGET', KEYS[1], 'state') or 'gone'
if state ~= 'running' and state ~= 'planning' then return state end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[3])
redis.call('HSET', KEYS[1] .. ':live', ARGV[2], ARGV[4])
return 'go'
"""
)

# KEYS job, lease   ARGV holder, unit, lease ms   -> "lost" or the job's state
RENEW = (
    _OWNERSHIP
    + """
if not owns() then return 'lost' end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[3])
return redis.call('HGET', KEYS[1], 'state') or 'gone'
"""
)

# The shard's manifest is in the folder, so it is done, whoever owns it now.
# KEYS job, lease, done   ARGV holder, unit, shard, ok, failed, attempt, JSON: the failed by kind
# -> 2 it was the last, else 1; 0 the job is gone
COMMIT = (
    _OWNERSHIP
    + """
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
"""
)

# KEYS job, lease   ARGV holder, unit, "1" to take the attempt back, attempt, why the unit is not done ("": it is), live
# "done,failed,kind=count,..." of what is kept of it ("": nothing)
# -> 1 released, 0 the unit was lost
RELEASE = (
    _OWNERSHIP
    + """
if not owns() then return 0 end
give_up()
if ARGV[3] == '1' then take_back() end
if ARGV[6] ~= '' then redis.call('HSET', KEYS[1] .. ':live', ARGV[2], ARGV[6])
else redis.call('HDEL', KEYS[1] .. ':live', ARGV[2]) end
redis.call('HDEL', KEYS[1] .. ':blame', ARGV[2])
if ARGV[5] ~= '' then tell('given_back', ARGV[2], ARGV[4], owner(), ARGV[5]) end
return 1
"""
)

# A worker process is known to be dead: free its unit now instead of waiting for the lease to run out.
# KEYS job, lease   ARGV owner, unit, blame ("": somebody ended it), "1" where that was a kill, free kills, node,
#   what else it died of ("": nobody knows)
# -> 1 freed, 0 the unit was another's
ABANDON = (
    _OWNERSHIP
    + """
local holder = redis.call('HGET', KEYS[1] .. ':holders', ARGV[2])
if not holder or string.match(holder, '|(.*)$') ~= ARGV[1] then return 0 end
local attempt = redis.call('HGET', KEYS[1] .. ':attempts', ARGV[2]) or ''
give_up()
redis.call('HDEL', KEYS[1] .. ':live', ARGV[2])
redis.call('HDEL', KEYS[1] .. ':blame', ARGV[2])  -- of an earlier death
tell('lost', ARGV[2], attempt, ARGV[1], ARGV[3] ~= '' and ARGV[3] or ARGV[7] ~= '' and ARGV[7] or 'killed or ended')
local function killed_often()  -- counted for shards alone, whose commit clears it
  return ARGV[4] == '1' and string.sub(ARGV[2], 1, 6) == 'shard-'
    and redis.call('HINCRBY', KEYS[1] .. ':kills', ARGV[2], 1) > tonumber(ARGV[5])
end
local function blame(cause)  -- and note on which node
  redis.call('HSET', KEYS[1] .. ':blame', ARGV[2], cause)
  local nodes = redis.call('HGET', KEYS[1] .. ':crashes', ARGV[2]) or '|'
  if not string.find(nodes, '|' .. ARGV[6] .. '|', 1, true) then
    redis.call('HSET', KEYS[1] .. ':crashes', ARGV[2], nodes .. ARGV[6] .. '|')
  end
end
if ARGV[3] ~= '' then
  blame(ARGV[3])
elseif killed_often() then  -- perhaps for what this unit needs
  blame(ARGV[7] ~= '' and ARGV[7] or 'SIGKILL')
else
  take_back()
end
return 1
"""
)

# KEYS job, lease   ARGV holder, unit, first shard, shards, images   -> 1 counted, 0 the unit was lost
ADD_SHARDS = (
    _OWNERSHIP
    + """
if not owns() then return 0 end
local shards = ARGV[3] + ARGV[4]
if shards > tonumber(redis.call('HGET', KEYS[1], 'shards')) then
  redis.call('HSET', KEYS[1], 'shards', shards)
  redis.call('HINCRBY', KEYS[1], 'images', ARGV[5])
end
return 1
"""
)

# KEYS job, lease, done   ARGV holder, unit, call, shards, images, ok, failed, JSON: the failed by kind,
# then the committed shards   -> 1 set, 0 the unit was lost
SYNC = (
    _OWNERSHIP
    + """
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
"""
)

# KEYS job, lease   ARGV holder, unit, field, value, ...   -> 1 set, 0 the unit was lost
NOTE = (
    _OWNERSHIP
    + """
if not owns() then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
return 1
"""
)

# The job has ended. Sent twice, it says the same.
# KEYS job, lease   ARGV holder, unit, epoch, target, its detail, then field, value, ...
# -> 1 ended by this holder, 0 another has the unit, or the job is in another state or round
END = (
    _OWNERSHIP
    + """
if redis.call('HGET', KEYS[1], 'ended_by') == ARGV[1] then return 1 end
local state, epoch = unpack(redis.call('HMGET', KEYS[1], 'state', 'epoch'))
if not owns() or state ~= 'finishing' or epoch ~= ARGV[3] then return 0 end
enter(ARGV[4], 'ended_by', ARGV[1], unpack(ARGV, 6))
forget_attempts()
announce()
tell('finished', '', '', '', ARGV[5])
return 1
"""
)

# Planning is complete.
# KEYS job, lease, done   ARGV holder, unit, attempt
# -> "lost" or the job's state: finishing where all shards are committed
PLANNED = (
    _OWNERSHIP
    + """
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
"""
)
