"""The steps that must be one step in Redis: Lua, run by the server without anything in between.

Who owns a unit of work is in the hash `:holders` of its job: the last one that claimed it and has not given it up. The
lease beside it only says for how long nobody else may claim it. So a worker that slept through its lease goes on where
nobody came in between; where somebody did, every script refuses the sleeper, whatever became of the other since.
"""

from trtjob.jobs.events import MOST_EVENTS

STATE = "trtjob:state:"  # sets: the ids of the jobs in each state
DEGRADED = STATE + "degraded"  # and of those that wait for what fails outside

# Takes KEYS[1] job, as every script does that begins with it.
_JOB = f"""
local function tell(event, unit, attempt, worker, detail)  -- see trtjob.jobs.events
  redis.call('XADD', KEYS[1] .. ':events', 'MAXLEN', '~', {MOST_EVENTS}, '*',
    'event', event, 'unit', unit, 'attempt', attempt, 'worker', worker, 'detail', detail)
end
local function job_id() return string.match(KEYS[1], '([^:]+)$') end
local function enter(state)  -- and say so in the sets of jobs by state, which make them quick to count
  local before = redis.call('HGET', KEYS[1], 'state')
  if before then redis.call('SREM', '{STATE}' .. before, job_id()) end
  redis.call('HSET', KEYS[1], 'state', state)
  redis.call('SADD', '{STATE}' .. state, job_id())
end
local function recover()
  redis.call('SREM', '{DEGRADED}', job_id())
  if redis.call('HDEL', KEYS[1], 'degraded') == 1 then tell('recovered', '', '', '', '') end
end
"""

# Takes KEYS[1] job, KEYS[2] lease, ARGV[1] holder, ARGV[2] unit, as every script does that begins with it.
_OWNERSHIP = (
    _JOB
    + """
local function owner() return string.match(ARGV[1], '([^|]*)$') end
local function owns() return redis.call('HGET', KEYS[1] .. ':holders', ARGV[2]) == ARGV[1] end
local function give_up()
  redis.call('HDEL', KEYS[1] .. ':holders', ARGV[2])
  redis.call('DEL', KEYS[2])
  -- The owner's own record says what it holds: "unit:<job>:<unit>".
  redis.call('HDEL', 'trtjob:worker:' .. owner(), 'unit:' .. job_id() .. ':' .. ARGV[2])
end
local function take_back()  -- the attempt does not count
  if redis.call('HINCRBY', KEYS[1] .. ':attempts', ARGV[2], -1) <= 0 then
    redis.call('HDEL', KEYS[1] .. ':attempts', ARGV[2])
  end
end
"""
)

# KEYS job, lease, done, worker, fence   ARGV unit, shard (-1: none), owner, lease ms, ",allowed,states,", worker ttl s
# -> {reason} or {"go", token, attempt, blame, "node|node" that it crashed on}
CLAIM = (
    _JOB
    + """
local state = redis.call('HGET', KEYS[1], 'state')
if not state then return {'gone'} end
if not string.find(ARGV[5], ',' .. state .. ',', 1, true) then return {state} end
local shard = tonumber(ARGV[2])
if shard >= tonumber(redis.call('HGET', KEYS[1], 'shards')) then return {'unknown'} end
if shard >= 0 and redis.call('GETBIT', KEYS[3], shard) == 1 then return {'committed'} end
if redis.call('EXISTS', KEYS[2]) == 1 then return {'busy'} end
local token = redis.call('INCR', KEYS[5])
local holder = token .. '|' .. ARGV[3]
local sleeper = redis.call('HGET', KEYS[1] .. ':holders', ARGV[1])
if sleeper then
  local spent = redis.call('HGET', KEYS[1] .. ':attempts', ARGV[1]) or ''
  tell('lost', ARGV[1], spent, string.match(sleeper, '([^|]*)$'), 'its lease ran out')
end
redis.call('SET', KEYS[2], holder, 'PX', ARGV[4])
redis.call('HSET', KEYS[1] .. ':holders', ARGV[1], holder)
redis.call('HSET', KEYS[4], 'unit:' .. job_id() .. ':' .. ARGV[1], token)
redis.call('EXPIRE', KEYS[4], ARGV[6])
local attempt = redis.call('HINCRBY', KEYS[1] .. ':attempts', ARGV[1], 1)
if attempt > 1 then redis.call('HINCRBY', KEYS[1], 'retries', 1) end
tell('taken', ARGV[1], attempt, ARGV[3], '')
local blame = redis.call('HGET', KEYS[1] .. ':blame', ARGV[1]) or ''
redis.call('HDEL', KEYS[1] .. ':blame', ARGV[1])  -- told once: the next death may have no blame, or another
return {'go', token, attempt, blame, redis.call('HGET', KEYS[1] .. ':crashes', ARGV[1]) or ''}
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
# -> 0 was committed before, 1 committed, 2 and was the last
COMMIT = (
    _OWNERSHIP
    + """
give_up()
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
for _, part in ipairs({'blame', 'live', 'attempts', 'kills', 'crashes'}) do
  redis.call('HDEL', KEYS[1] .. ':' .. part, ARGV[2])
end
recover()  -- the manifest is written, so storage works
if redis.call('SETBIT', KEYS[3], ARGV[3], 1) == 1 then return 0 end
redis.call('HINCRBY', KEYS[1], 'ok', ARGV[4])
redis.call('HINCRBY', KEYS[1], 'failed', ARGV[5])
for kind, count in pairs(cjson.decode(ARGV[7])) do redis.call('HINCRBY', KEYS[1] .. ':kinds', kind, count) end
tell('committed', ARGV[2], ARGV[6], owner(), ARGV[4] .. ' ok, ' .. ARGV[5] .. ' failed')
if redis.call('HGET', KEYS[1], 'planned') == '1'
   and redis.call('BITCOUNT', KEYS[3]) >= tonumber(redis.call('HGET', KEYS[1], 'shards'))
   and redis.call('HGET', KEYS[1], 'state') == 'running' then
  enter('finishing')
  return 2
end
return 1
"""
)

# KEYS job, lease   ARGV holder, unit, "1" to take the attempt back, attempt, why the unit is not done ("": it is)
# -> 1 released, 0 the unit was lost
RELEASE = (
    _OWNERSHIP
    + """
if not owns() then return 0 end
give_up()
if ARGV[3] == '1' then take_back() end
redis.call('HDEL', KEYS[1] .. ':live', ARGV[2])
if ARGV[5] ~= '' then tell('given_back', ARGV[2], ARGV[4], owner(), ARGV[5]) end
return 1
"""
)

# A worker process is known to be dead: free its unit now instead of waiting for the lease to run out.
# KEYS job, lease   ARGV owner, unit, blame ("": somebody ended it), "1" where that was a kill, free kills, node
# -> 1 freed, 0 the unit was another's
ABANDON = (
    _OWNERSHIP
    + """
local holder = redis.call('HGET', KEYS[1] .. ':holders', ARGV[2])
if not holder or string.match(holder, '|(.*)$') ~= ARGV[1] then return 0 end
local attempt = redis.call('HGET', KEYS[1] .. ':attempts', ARGV[2]) or ''
give_up()
redis.call('HDEL', KEYS[1] .. ':live', ARGV[2])
tell('lost', ARGV[2], attempt, ARGV[1], ARGV[3] == '' and 'killed or ended' or ARGV[3])
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
  blame('SIGKILL')
else
  take_back()
end
return 1
"""
)

# KEYS job   ARGV target, ",origins,", event ("": none), its detail, then field, value, ...
# -> 1 moved, 0 not from this state
MOVE = (
    _JOB
    + """
local state = redis.call('HGET', KEYS[1], 'state')
if not state or not string.find(ARGV[2], ',' .. state .. ',', 1, true) then return 0 end
enter(ARGV[1])
for i = 5, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
if ARGV[3] ~= '' then tell(ARGV[3], '', '', '', ARGV[4]) end
return 1
"""
)

# KEYS job   ARGV what is failing outside the job; "": nothing any more
DEGRADE = (
    _JOB
    + f"""
if redis.call('EXISTS', KEYS[1]) == 0 then return end
if ARGV[1] == '' then return recover() end
if redis.call('SADD', '{DEGRADED}', job_id()) == 1 then tell('degraded', '', '', '', ARGV[1]) end
redis.call('HSET', KEYS[1], 'degraded', ARGV[1])
"""
)

# KEYS job, lease   ARGV holder, unit, shards, images   -> 1 counted, 0 the unit was lost
ADD_SHARDS = (
    _OWNERSHIP
    + """
if not owns() then return 0 end
redis.call('HINCRBY', KEYS[1], 'shards', ARGV[3])
redis.call('HINCRBY', KEYS[1], 'images', ARGV[4])
return 1
"""
)

# KEYS job, lease, done   ARGV holder, unit, shards, images, ok, failed, JSON: the failed by kind,
# then the committed shards   -> 1 set, 0 the unit was lost
SYNC = (
    _OWNERSHIP
    + """
if not owns() then return 0 end
redis.call('HSET', KEYS[1], 'shards', ARGV[3], 'images', ARGV[4], 'ok', ARGV[5], 'failed', ARGV[6])
redis.call('DEL', KEYS[1] .. ':kinds')
for kind, count in pairs(cjson.decode(ARGV[7])) do redis.call('HSET', KEYS[1] .. ':kinds', kind, count) end
for i = 8, #ARGV do redis.call('SETBIT', KEYS[3], ARGV[i], 1) end
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
redis.call('HSET', KEYS[1], 'planned', '1')
local shards, images = unpack(redis.call('HMGET', KEYS[1], 'shards', 'images'))
tell('planned', ARGV[2], ARGV[3], owner(), images .. ' images, ' .. shards .. ' shards')
if redis.call('HGET', KEYS[1], 'state') == 'planning' then enter('running') end
if redis.call('HGET', KEYS[1], 'state') == 'running'
   and redis.call('BITCOUNT', KEYS[3]) >= tonumber(shards) then
  enter('finishing')
end
return redis.call('HGET', KEYS[1], 'state')
"""
)
