-- tell: write an event of a job that is there.
-- KEYS[1]  job, hash                trtjob:job:<job>
-- Touches :calls, :events
-- ARGV     call, event, unit, worker, detail
-- Answers nothing.
-- Sent twice: the job remembers it.
-- include lib/events

if redis.call('EXISTS', KEYS[1]) == 0 or was_done(ARGV[1]) then return end
note_done(ARGV[1])
tell(ARGV[2], ARGV[3], '', ARGV[4], ARGV[5])
