"""The steps that must be one step in Redis: Lua, run by the server without anything in between.

Who owns a unit of work is in the hash `:holders` of its job: the last one that claimed it and has not given it up. The
lease beside it only says for how long nobody else may claim it. So a worker that slept through its lease goes on where
nobody came in between; where somebody did, every script refuses the sleeper, whatever became of the other since.

A client that loses its connection before the reply comes sends its command again. So each script may come twice:

    CREATE       the job has the name of the call that made it: the same call made it, another finds it there
    MOVE         the job remembers its last calls: one that was done answers 1 again, and moves nothing
    UPDATE       sets values; the sets and the time of an end change with the state alone
    ENLIST       enters the job where it is
    PRIORITIZE   tells of it only where the priority is another one
    FORGET       a job that is gone is gone; a new one of the same id has not ended
    DEGRADE      tells of it only where it is new
    CLAIM        the holder has the name of the call: the same call gets its claim again, and no attempt counts
    CHECK, RENEW set a lease and a value
    COMMIT       a shard's bit is set once; the holder whose commit was the last is told so again
    RELEASE      gives up what the holder owns, which it does not any more: 0, and a sweep asks for the unit instead
    ABANDON      as RELEASE, by the dead worker's name
    ADD_SHARDS   adds those beyond the last that is counted
    SYNC         the job remembers it: done once more, it would undo commits that came in between
    PLANNED      tells of it once for each holder; its answer is the job's state
    NOTE         sets values, where the holder still is one
    END          the job knows which holder ended it, and says so again
    TAKE_NOTICE  the taker's token is in the notice: it gets it again
    SETTLE_NOTICE gives up the token, without which it does nothing; a notice that is gone is gone

Those of the queue (`trtjob.queue.queue_scripts`), and of events:

    PUT          passes over messages that wait; one that was taken meanwhile is doubled, and refused by its claim
    REORDER      the same places again
    TAKE         the taker has what its last call got, by the call's name
    TAKE_OF      as TAKE
    BRING_FORWARD  what is before all is put there again
    CLEAR_RUBBISH, COUNT, SIZE   remove what is there, or read
    TELL         the job remembers it

Outside of scripts: HSET, SADD, DEL, EXPIRE and the like say what shall be; a lock that was taken without our hearing of
it runs out; a message that RQ took so is not leased, and is asked for again.
"""

from trtjob.jobs.states import TERMINAL, JobState
from trtjob.queue.events import TELLING
from trtjob.queue.keys import DEGRADED, ENDED, JOBS, NOTICE, NOTICES, PARTS, QUEUE, STATE

_NOTICE_TTL_S = 172_800  # above GIVE_UP_S of trtjob.queue.notifications

# Takes KEYS[1] job, as every script does that begins with it.
JOB_STEPS = (
    TELLING
    + f"""
local has_ended = {{{", ".join(f"{state} = true" for state in sorted(TERMINAL))}}}
local function job_id() return string.match(KEYS[1], '([^:]+)$') end
local function leave()  -- the sets that the job is in
  local found = redis.pcall('HMGET', KEYS[1], 'state', 'queue')
  if found.err or not found[1] then return end  -- what is there is not ours
  local state, queue = unpack(found)
  local of_queue = '{QUEUE}' .. (queue or '')
  redis.call('SREM', '{STATE}' .. state, job_id())
  redis.call('SREM', of_queue .. ':' .. state, job_id())
  redis.call('ZREM', of_queue .. '{ENDED}', job_id())
end
local function enter(state, ...)  -- with other fields; the sets make jobs quick to count and to find
  leave()
  redis.call('HSET', KEYS[1], 'state', state, ...)
  local of_queue = '{QUEUE}' .. (redis.call('HGET', KEYS[1], 'queue') or '')
  redis.call('SADD', '{STATE}' .. state, job_id())
  redis.call('SADD', of_queue .. ':' .. state, job_id())
  if has_ended[state] then  -- and waits for nothing
    redis.call('ZADD', of_queue .. '{ENDED}', redis.call('TIME')[1], job_id())
    redis.call('SREM', '{DEGRADED}', job_id())
    redis.call('HDEL', KEYS[1], 'degraded', 'aside_since')
    redis.call('DEL', KEYS[1] .. ':aside')
  end
end
local function announce()  -- an end, to who waits for it, as things stand now; see trtjob.queue.notifications
  local state, url = unpack(redis.call('HMGET', KEYS[1], 'state', 'notify'))
  if not url or not has_ended[state] or state == '{JobState.STOPPED}' then return end
  redis.call('HDEL', KEYS[1], 'notify')
  local time = redis.call('TIME')
  local delivery = string.sub(redis.sha1hex(job_id() .. ' ' .. time[1] .. ' ' .. time[2]), 1, 16)  -- of no other end
  local notice = '{NOTICE}' .. delivery
  redis.call('HSET', notice, 'job_id', job_id(), 'url', url, 'at', 0, 'since', time[1])
  for _, name in ipairs({{'spec', 'state', 'message', 'images', 'ok', 'failed', 'skipped', 'finished_at'}}) do
    redis.call('HSET', notice, name, redis.call('HGET', KEYS[1], name) or '')
  end
  redis.call('EXPIRE', notice, {_NOTICE_TTL_S})
  local queue = redis.call('HGET', KEYS[1], 'queue') or ''
  local waiting = '{NOTICES}' .. (queue == '' and '' or ':' .. queue)
  redis.pcall('SADD', waiting, delivery)  -- a job ends also where somebody has put something else there
end
local function recover()
  redis.call('HDEL', KEYS[1], 'aside_since')
  redis.call('SREM', '{DEGRADED}', job_id())
  if redis.call('HDEL', KEYS[1], 'degraded') == 1 then tell('recovered', '', '', '', '') end
end
local function forget()
  leave()
  redis.call('ZREM', '{JOBS}', job_id())
  redis.call('SREM', '{DEGRADED}', job_id())
  for _, unit in ipairs(redis.pcall('HKEYS', KEYS[1] .. ':holders')) do
    redis.call('DEL', 'trtjob:lease:' .. job_id() .. ':' .. unit)
  end
  redis.call('DEL', KEYS[1])
  for part in string.gmatch('{" ".join(PARTS)}', '%S+') do redis.call('DEL', KEYS[1] .. ':' .. part) end
end
"""
)

# A job of the same id that was submitted at another time is one of an earlier life: its folder was removed since.
# KEYS job   ARGV call, spec, submitted at, state, queue, "1" where its folder is new, what the event says, then field,
# value, ...   -> 1 made by this call, 0 it is there
CREATE = (
    JOB_STEPS
    + f"""
local spec, made_by, created_at, state = unpack(redis.call('HMGET', KEYS[1], 'spec', 'made_by', 'created_at', 'state'))
if made_by == ARGV[1] then return 1 end
if spec and created_at == ARGV[3] and not (ARGV[6] == '1' and has_ended[state]) then return 0 end
forget()
redis.call('HSET', KEYS[1], 'spec', ARGV[2], 'made_by', ARGV[1], 'created_at', ARGV[3], 'queue', ARGV[5])
enter(ARGV[4], unpack(ARGV, 8))
redis.call('ZADD', '{JOBS}', ARGV[3], job_id())
tell('submitted', '', '', '', ARGV[7])
return 1
"""
)

# KEYS job   ARGV call, target, ",origins,", event ("": none), its detail, the runner that it must have ("": whichever),
# then field, value, ...   -> 1 moved, 0 not from this state, or another runner has it
MOVE = (
    JOB_STEPS
    + """
local state, runner = unpack(redis.call('HMGET', KEYS[1], 'state', 'runner'))
if not state then return 0 end
if was_done(ARGV[1]) then return 1 end
if ARGV[6] ~= '' and ARGV[6] ~= runner then return 0 end
if not string.find(ARGV[3], ',' .. state .. ',', 1, true) then return 0 end
note_done(ARGV[1])
leave()  -- the queue may be among the fields
enter(ARGV[2], unpack(ARGV, 7))
announce()
if ARGV[4] ~= '' then tell(ARGV[4], '', '', '', ARGV[5]) end
return 1
"""
)

# KEYS job   ARGV field, value, ...   -> 1 set, 0 the job is gone
UPDATE = (
    JOB_STEPS
    + """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local is_moved = false
for i = 1, #ARGV, 2 do
  if ARGV[i] ~= 'state' then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  elseif redis.call('HGET', KEYS[1], 'state') ~= ARGV[i + 1] then
    enter(ARGV[i + 1])
    is_moved = true
  end
end
if is_moved then announce() end
return 1
"""
)

# A list was lost.
# KEYS job
ENLIST = (
    JOB_STEPS
    + f"""
local state, created_at = unpack(redis.call('HMGET', KEYS[1], 'state', 'created_at'))
if not state or not tonumber(created_at) then return end
redis.call('ZADD', '{JOBS}', created_at, job_id())
enter(state)
"""
)

# KEYS job   ARGV priority
PRIORITIZE = (
    JOB_STEPS
    + """
local before = redis.call('HGET', KEYS[1], 'priority')
if not before or before == ARGV[1] then return end
redis.call('HSET', KEYS[1], 'priority', ARGV[1])
tell('priority', '', '', '', ARGV[1])
"""
)

# KEYS job   ARGV "": whatever it does; else only where it has ended by then, seconds by the server's clock;
# -> 1 it is gone, 0 it stays
FORGET = (
    JOB_STEPS
    + f"""
if redis.call('EXISTS', KEYS[1]) == 0 then return 1 end
if ARGV[1] ~= '' then
  local of_queue = '{QUEUE}' .. (redis.call('HGET', KEYS[1], 'queue') or '')
  local ended_at = redis.call('ZSCORE', of_queue .. '{ENDED}', job_id())
  if not ended_at or tonumber(ended_at) > tonumber(ARGV[1]) then return 0 end
end
forget()
return 1
"""
)

# KEYS job   ARGV what is failing outside the job; "": nothing any more
DEGRADE = (
    JOB_STEPS
    + f"""
local state = redis.call('HGET', KEYS[1], 'state')
if not state or has_ended[state] then return end
if ARGV[1] == '' then return recover() end
if redis.call('SADD', '{DEGRADED}', job_id()) == 1 then tell('degraded', '', '', '', ARGV[1]) end
redis.call('HSET', KEYS[1], 'degraded', ARGV[1])
"""
)

# Take a notice for as long as a send may last: until then nobody else sends it.
# KEYS notices, notice   ARGV delivery id, token, lease s   -> its fields; nothing where it is not due, or gone
TAKE_NOTICE = """
if redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('SREM', KEYS[1], ARGV[1])
  return nil
end
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
if redis.call('HGET', KEYS[2], 'token') == ARGV[2] then return redis.call('HGETALL', KEYS[2]) end
if (tonumber(redis.call('HGET', KEYS[2], 'at')) or 0) > now then return nil end
redis.call('HSET', KEYS[2], 'at', now + ARGV[3], 'token', ARGV[2])
return redis.call('HGETALL', KEYS[2])
"""

# A notice was sent, or is to be sent again later, where nobody else has taken it meanwhile.
# KEYS notices, notice   ARGV delivery id, token, pause s ("": it is done)
SETTLE_NOTICE = """
if ARGV[3] == '' then
  redis.call('SREM', KEYS[1], ARGV[1])
  redis.call('DEL', KEYS[2])
elseif redis.call('HGET', KEYS[2], 'token') == ARGV[2] then
  local time = redis.call('TIME')
  redis.call('HSET', KEYS[2], 'at', time[1] + time[2] / 1000000 + ARGV[3])
  redis.call('HINCRBY', KEYS[2], 'tries', 1)
  redis.call('HDEL', KEYS[2], 'token')
end
"""
