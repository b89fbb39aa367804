-- move: change a job's state where its present state allows.
-- KEYS[1]  job, hash                trtjob:job:<job>
-- Touches states, queues, degraded, notices, notice; :calls, :events, :aside
-- ARGV     call, target, ",origins,", event ("": none), its detail, the runner that it must have ("": whichever), then
--          field, value, ...
-- Answers 1 moved, 0 not from this state, or another runner has it.
-- Sent twice: the job remembers its last calls: one that was done answers 1 again, and moves nothing.
-- include lib/job

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
