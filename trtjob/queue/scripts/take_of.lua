-- take_of: take the first message of one job.
-- KEYS[1]  list                     rq:queue:<queue>              RQ's: the messages that wait
-- KEYS[2]  taken, string            trtjob:taken:<taker>          what the taker took last, behind the name of its call
-- Touches RQ's record of it
-- ARGV     job, "1" for a shard alone, call, seconds for which the last one is remembered
-- Answers its unit; nothing where it has none, or that is no shard.
-- Sent twice: as take.
-- include lib/messages

local function unit_of(message) return string.sub(message, #ARGV[1] + 3, -11) end
local last = redis.call('GET', KEYS[2])
if last and string.sub(last, 1, #ARGV[3]) == ARGV[3] then return unit_of(string.sub(last, #ARGV[3] + 1)) end
for _, message in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
  if job_of(message) == ARGV[1] then
    if ARGV[2] == '1' and not shard_of(message) then return nil end
    redis.call('LREM', KEYS[1], 1, message)
    redis.call('DEL', KEY.message .. message)
    redis.call('SET', KEYS[2], ARGV[3] .. message, 'EX', ARGV[4])
    return unit_of(message)
  end
end
return nil
