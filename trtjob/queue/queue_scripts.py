"""The order of the one queue: Lua, run by the server without anything in between.

First the class of the job: high, normal, low. In a class the jobs take turns: a message goes behind the last one of its
job, and from there behind one of every other job. So two jobs share the workers evenly, whatever they ask for and when,
and a small job that is handed in behind a large one waits for one message of it and not for all.
"""

# A message is called "<job>--<unit>--<8 hex digits>"; a conversion's job is "convert". What is called otherwise is
# nobody's: it stands in nobody's way at the front, where RQ passes over it.
_MESSAGES = """
local classes = {high = 0, normal = 1, low = 2}
local function job_of(message) return string.match(string.sub(message, 1, -11), '^(.+)%-%-') or '' end
local known = {[''] = 0, convert = 0}
local function class_of(job)
  known[job] = known[job] or classes[redis.call('HGET', 'trtjob:job:' .. job, 'priority') or 'normal'] or 1
  return known[job]
end
-- -> job, unit; nothing where it asks for something else
local function shard_of(message)
  return string.match(message, '^([%w-]+)%-%-(shard%-%d%d%d%d%d%d?%d?%d?%d?)%-%-%x%x%x%x%x%x%x%x$')
end
"""

_INSERT = (
    _MESSAGES
    + """
-- Insert messages of one job, but for those that wait. Of shards only so many may wait; RQ's records of the others
-- are removed. Returns how many were put.
local function insert(messages, at_front, window)
  local waiting, jobs, is_there = redis.call('LRANGE', KEYS[1], 0, -1), {}, {}
  local job = job_of(messages[1])
  local class, count = class_of(job), 0
  for i, message in ipairs(waiting) do
    jobs[i] = job_of(message)
    is_there[message] = true
    if jobs[i] == job then count = count + 1 end
  end
  local at, stop = 1, 1  -- the class may begin here; the next one begins there
  while waiting[stop] and class_of(jobs[stop]) <= class do
    if class_of(jobs[stop]) < class or (jobs[stop] == job and not at_front) then at = stop + 1 end
    stop = stop + 1
  end
  local put = 0
  for _, message in ipairs(messages) do
    if is_there[message] then
      put = put + 1
    elseif count >= window and shard_of(message) then
      redis.call('DEL', 'rq:job:' .. message)
    else
      local had_turn = {}
      while at < stop and not at_front and not had_turn[jobs[at]] do
        had_turn[jobs[at]] = true
        at = at + 1
      end
      if waiting[at] then
        redis.call('LINSERT', KEYS[1], 'BEFORE', waiting[at], message)
      else
        redis.call('RPUSH', KEYS[1], message)
      end
      count, put = count + 1, put + 1
    end
  end
  return put
end
"""
)

# KEYS list   ARGV most messages of the job that may wait, "1" for the front of its class, then messages of one job
# -> how many were put
PUT = (
    _INSERT
    + """
return insert({unpack(ARGV, 3)}, ARGV[2] == '1', tonumber(ARGV[1]))
"""
)

# KEYS list   ARGV job   The job's messages get the places of its present class.
REORDER = (
    _INSERT
    + """
local messages = {}
for _, message in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
  if job_of(message) == ARGV[1] then
    redis.call('LREM', KEYS[1], 1, message)
    messages[#messages + 1] = message
  end
end
if #messages > 0 then insert(messages, false, math.huge) end
"""
)

# KEYS list   ARGV job   -> how many of its messages wait
COUNT = (
    _MESSAGES
    + """
local count = 0
for _, message in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
  if job_of(message) == ARGV[1] then count = count + 1 end
end
return count
"""
)

# How often a message was passed over is noted in RQ's record of it, and goes with that; one without it is not passed.
# KEYS list, what the taker took last   ARGV model, most often that the first message may be passed over, call, seconds
# for which the last one is remembered
# -> {job, unit} of a shard, its message taken; nothing where the first message is something else
TAKE = (
    _MESSAGES
    + """
local function has_model(job) return redis.call('HGET', 'trtjob:job:' .. job, 'model') == ARGV[1] end
local function take(message)
  redis.call('LREM', KEYS[1], 1, message)
  redis.call('DEL', 'rq:job:' .. message)
  redis.call('SET', KEYS[2], ARGV[3] .. message, 'EX', ARGV[4])
  return {shard_of(message)}
end
local last = redis.call('GET', KEYS[2])
if last and string.sub(last, 1, #ARGV[3]) == ARGV[3] then return {shard_of(string.sub(last, #ARGV[3] + 1))} end
local first = redis.call('LINDEX', KEYS[1], 0)
local job = first and shard_of(first)
if not job then return nil end
local record = 'rq:job:' .. first
if has_model(job) or redis.call('EXISTS', record) == 0
   or tonumber(redis.call('HGET', record, 'passed') or 0) >= tonumber(ARGV[2]) then
  return take(first)
end
local is_other = {[job] = true}  -- jobs of other models
for _, message in ipairs(redis.call('LRANGE', KEYS[1], 1, -1)) do
  local theirs = job_of(message)
  if not is_other[theirs] then
    if class_of(theirs) ~= class_of(job) then break end
    if not has_model(theirs) then
      is_other[theirs] = true
    elseif shard_of(message) then
      redis.call('HINCRBY', record, 'passed', 1)
      return take(message)
    end
  end
end
return take(first)
"""
)

# KEYS list, what the taker took last   ARGV job, "1" for a shard alone, call, seconds for which the last one is
# remembered   -> the unit that the job's first message asks for, its message taken; nothing where it is none of these
TAKE_OF = (
    _MESSAGES
    + """
local function unit_of(message) return string.sub(message, #ARGV[1] + 3, -11) end
local last = redis.call('GET', KEYS[2])
if last and string.sub(last, 1, #ARGV[3]) == ARGV[3] then return unit_of(string.sub(last, #ARGV[3] + 1)) end
for _, message in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
  if job_of(message) == ARGV[1] then
    if ARGV[2] == '1' and not shard_of(message) then return nil end
    redis.call('LREM', KEYS[1], 1, message)
    redis.call('DEL', 'rq:job:' .. message)
    redis.call('SET', KEYS[2], ARGV[3] .. message, 'EX', ARGV[4])
    return unit_of(message)
  end
end
return nil
"""
)

# KEYS list   ARGV jobs   The first message that is of none of them comes before all.   -> 1, 0 where there is none
BRING_FORWARD = (
    _MESSAGES
    + """
local passed = {}
for _, job in ipairs(ARGV) do passed[job] = true end
for _, message in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
  if not passed[job_of(message)] then
    redis.call('LREM', KEYS[1], 1, message)
    redis.call('LPUSH', KEYS[1], message)
    return 1
  end
end
return 0
"""
)

# KEYS lists   -> how many names were removed that RQ ends a worker for: its own names are letters, digits, "_" and "-"
CLEAR_RUBBISH = """
local count = 0
for _, list in ipairs(KEYS) do
  for _, name in ipairs(redis.call('LRANGE', list, 0, -1)) do
    if string.find(name, '[^%w_-]') then count = count + redis.call('LREM', list, 1, name) end
  end
end
return count
"""

# KEYS record   ARGV most fields -> the bytes of a record's names and values, -1 where it has more fields than that
SIZE = """
if redis.call('HLEN', KEYS[1]) > tonumber(ARGV[1]) then return -1 end
local bytes = 0
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  bytes = bytes + #field + redis.call('HSTRLEN', KEYS[1], field)
end
return bytes
"""
