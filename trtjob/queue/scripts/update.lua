-- update: set fields of a job, its state among them.
-- KEYS[1]  job, hash                trtjob:job:<job>
-- Touches states, queues, degraded, notices, notice; :events, :aside
-- ARGV     field, value, ...
-- Answers 1 set, 0 the job is gone.
-- Sent twice: it sets values; the sets and the time of an end change with the state alone.
-- include lib/job

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
