-- take: take the first message, or one of its class whose job has the model that is loaded. How often the first was
--   passed over is noted in RQ's record of it, and goes with that; one without a record is not passed.
-- KEYS[1]  list                     rq:queue:<queue>              RQ's: the messages that wait
-- KEYS[2]  taken, string            trtjob:taken:<taker>          what the taker took last, behind the name of its call
-- Touches RQ's records; the model and the priority of each job that waits
-- ARGV     model, most often that the first message may be passed over, call, seconds for which the last one is
--          remembered
-- Answers {job, unit} of a shard, its message taken; nothing where the first message is something else.
-- Sent twice: the taker has what its last call got, by the call's name.
-- include lib/messages

local function has_model(job) return redis.call('HGET', KEY.job .. job, 'model') == ARGV[1] end
local function take(message)
  redis.call('LREM', KEYS[1], 1, message)
  redis.call('DEL', KEY.message .. message)
  redis.call('SET', KEYS[2], ARGV[3] .. message, 'EX', ARGV[4])
  return {shard_of(message)}
end
local last = redis.call('GET', KEYS[2])
if last and string.sub(last, 1, #ARGV[3]) == ARGV[3] then return {shard_of(string.sub(last, #ARGV[3] + 1))} end
local first = redis.call('LINDEX', KEYS[1], 0)
local job = first and shard_of(first)
if not job then return nil end
local record = KEY.message .. first
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
