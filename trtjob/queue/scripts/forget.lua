-- forget: remove every key of a job.
-- KEYS[1]  job, hash                trtjob:job:<job>
-- Touches jobs, states, queues, degraded, leases, every part
-- ARGV     "": whatever it does; else only where it has ended by then, seconds by the server's clock
-- Answers 1 it is gone, 0 it stays.
-- Sent twice: a job that is gone is gone; a new one of the same id has not ended.
-- include lib/job

if redis.call('EXISTS', KEYS[1]) == 0 then return 1 end
if ARGV[1] ~= '' then
  local of_queue = KEY.queue .. (redis.call('HGET', KEYS[1], 'queue') or '')
  local ended_at = redis.call('ZSCORE', of_queue .. KEY.ended, job_id())
  if not ended_at or tonumber(ended_at) > tonumber(ARGV[1]) then return 0 end
end
forget()
return 1
