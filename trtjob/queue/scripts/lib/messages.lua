-- What a message is called: "<job>--<unit>--<8 hex digits>"; a conversion's job is "convert". What is called otherwise
-- is nobody's: it stands in nobody's way at the front, where RQ passes over it. Reads the priority of jobs.

local classes = {high = 0, normal = 1, low = 2}
local function job_of(message) return string.match(string.sub(message, 1, -11), '^(.+)%-%-') or '' end
local known = {[''] = 0, convert = 0}
local function class_of(job)
  known[job] = known[job] or classes[redis.call('HGET', KEY.job .. job, 'priority') or 'normal'] or 1
  return known[job]
end
-- -> job, unit; nothing where it asks for something else
local function shard_of(message)
  return string.match(message, '^([%w-]+)%-%-(shard%-%d%d%d%d%d%d?%d?%d?%d?)%-%-%x%x%x%x%x%x%x%x$')
end
