"""The order of the one queue: Lua, run by the server without anything in between.

First the class of the job: high, normal, low. In a class, rounds: the i-th message of a job that waits is in round i,
and a round holds one of each job. So jobs of one class share the workers, and a small job that is handed in behind a
large one waits for one message of it and not for all.
"""

# A message is called "<job>--<unit>--<hex>"; a conversion's job is "convert", and what is called otherwise is nobody's.
_MESSAGES = """
local classes = {high = 0, normal = 1, low = 2}
local function job_and_unit(message) return string.match(message, '^(.+)%-%-(.-)%-%-%x+$') end
local known = {convert = 0}
local function class_of(job)
  if not job then return 0 end
  known[job] = known[job] or classes[redis.call('HGET', 'trtjob:job:' .. job, 'priority') or 'normal'] or 1
  return known[job]
end
"""

# KEYS list   ARGV message, "1" for the front of its class
PUSH = (
    _MESSAGES
    + """
local job = job_and_unit(ARGV[1])
local class = class_of(job)
local waiting = redis.call('LRANGE', KEYS[1], 0, -1)
local round = 0
if ARGV[2] ~= '1' then
  for _, message in ipairs(waiting) do
    if job_and_unit(message) == job then round = round + 1 end
  end
end
local rounds = {}
for _, message in ipairs(waiting) do
  local other = job_and_unit(message)
  local theirs = rounds[other or ''] or 0
  rounds[other or ''] = theirs + 1
  local their_class = class_of(other)
  if their_class > class or (their_class == class and (ARGV[2] == '1' or theirs > round)) then
    return redis.call('LINSERT', KEYS[1], 'BEFORE', message, ARGV[1])
  end
end
return redis.call('RPUSH', KEYS[1], ARGV[1])
"""
)

# KEYS list   ARGV job   -> how many of its messages wait
COUNT = (
    _MESSAGES
    + """
local count = 0
for _, message in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
  if job_and_unit(message) == ARGV[1] then count = count + 1 end
end
return count
"""
)

# KEYS list, passed   ARGV model, most often that the first message may be passed over
# -> {job, unit} of a shard, its message taken; nothing where the first message is something else
TAKE = (
    _MESSAGES
    + """
local waiting = redis.call('LRANGE', KEYS[1], 0, -1)
if #waiting == 0 then return nil end
local function shard_of(message)
  local job, unit = job_and_unit(message)
  if job and string.sub(unit, 1, 6) == 'shard-' then return job, unit end
end
local function model_of(job) return redis.call('HGET', 'trtjob:job:' .. job, 'model') end
local function take(message, job, unit)
  redis.call('LREM', KEYS[1], 1, message)
  redis.call('DEL', 'rq:job:' .. message)
  return {job, unit}
end
local job, unit = shard_of(waiting[1])
if not job then return nil end
if model_of(job) ~= ARGV[1] then
  local class = class_of(job)
  for i = 2, #waiting do
    if class_of((job_and_unit(waiting[i]))) ~= class then break end
    local other, theirs = shard_of(waiting[i])
    if other and model_of(other) == ARGV[1] then
      if redis.call('HINCRBY', KEYS[2], waiting[1], 1) > tonumber(ARGV[2]) then break end
      redis.call('EXPIRE', KEYS[2], 600)
      return take(waiting[i], other, theirs)
    end
  end
end
redis.call('HDEL', KEYS[2], waiting[1])
return take(waiting[1], job, unit)
"""
)
