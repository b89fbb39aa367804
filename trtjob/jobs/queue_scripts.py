"""The order of the one queue: Lua, run by the server without anything in between.

First the class of the job: high, normal, low. In a class, rounds: the i-th message of a job that waits is in round i,
and a round holds one of each job. So jobs of one class share the workers, and a small job that is handed in behind a
large one waits for one message of it and not for all.
"""

# A message is called "<job>--<unit>--<hex>"; a conversion's job is "convert", and what is called otherwise is nobody's.
_MESSAGES = """
local classes = {high = 0, normal = 1, low = 2}
local function job_and_unit(message) return string.match(message, '^([%w_-]+)%-%-([%w_-]-)%-%-%x+$') end
local known = {convert = 0}
local function class_of(job)
  if not job then return 0 end
  known[job] = known[job] or classes[redis.call('HGET', 'trtjob:job:' .. job, 'priority') or 'normal'] or 1
  return known[job]
end
local function shard_of(message)
  local job, unit = job_and_unit(message)
  if job and string.find(unit, '^shard%-%d+$') then return job, unit end
end
"""

_INSERT = (
    _MESSAGES
    + """
-- Insert messages of one job, in one walk: their rounds rise, so each has its place behind the one before. Of shards
-- only so many may wait; RQ's records of the others are removed. Returns how many were put.
local function insert(messages, at_front, window)
  local waiting = redis.call('LRANGE', KEYS[1], 0, -1)
  local job = job_and_unit(messages[1])
  local class, round = class_of(job), 0
  for _, message in ipairs(waiting) do
    if job and job_and_unit(message) == job then round = round + 1 end
  end
  local at, rounds = 1, {}
  local function is_before(message)
    local other = job_and_unit(message)
    local theirs, their_class = rounds[other or ''] or 0, class_of(other)
    if their_class > class or (their_class == class and (at_front or theirs > round)) then return false end
    rounds[other or ''] = theirs + 1
    return true
  end
  local put = 0
  for _, message in ipairs(messages) do
    if round >= window and shard_of(message) then
      redis.call('DEL', 'rq:job:' .. message)
    else
      while waiting[at] and is_before(waiting[at]) do at = at + 1 end
      if waiting[at] then
        redis.call('LINSERT', KEYS[1], 'BEFORE', waiting[at], message)
      else
        redis.call('RPUSH', KEYS[1], message)
      end
      round, put = round + 1, put + 1
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
  if job_and_unit(message) == ARGV[1] then
    redis.call('LREM', KEYS[1], 1, message)
    messages[#messages + 1] = message
  end
end
if #messages > 0 then insert(messages, false, math.huge) end
"""
)

# How often a message was passed over is noted in RQ's record of it, and goes with that; one without it is not passed.
# KEYS list   ARGV model, most often that the first message may be passed over
# -> {job, unit} of a shard, its message taken; nothing where the first message is something else
TAKE = (
    _MESSAGES
    + """
local waiting = redis.call('LRANGE', KEYS[1], 0, -1)
local function has_model(job) return redis.call('HGET', 'trtjob:job:' .. job, 'model') == ARGV[1] end
local function take(message, job, unit)
  redis.call('LREM', KEYS[1], 1, message)
  redis.call('DEL', 'rq:job:' .. message)
  return {job, unit}
end
local function may_pass(message)
  local record = 'rq:job:' .. message
  return redis.call('EXISTS', record) == 1
    and tonumber(redis.call('HGET', record, 'passed') or 0) < tonumber(ARGV[2])
end

if #waiting == 0 then return nil end
local job, unit = shard_of(waiting[1])
if not job then return nil end
if not has_model(job) and may_pass(waiting[1]) then
  for i = 2, #waiting do
    if class_of((job_and_unit(waiting[i]))) ~= class_of(job) then break end
    local other, theirs = shard_of(waiting[i])
    if other and has_model(other) then
      redis.call('HINCRBY', 'rq:job:' .. waiting[1], 'passed', 1)
      return take(waiting[i], other, theirs)
    end
  end
end
return take(waiting[1], job, unit)
"""
)
