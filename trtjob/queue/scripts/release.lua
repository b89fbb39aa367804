-- release: give a unit up.
-- KEYS[1]  job, hash                trtjob:job:<job>
-- KEYS[2]  lease, string            trtjob:lease:<job>:<unit>     with an end: so long nobody else may claim the unit
-- Touches :holders, :attempts, :live, :blame, :events; the owner's worker
-- ARGV     holder, unit, "1" to take the attempt back, attempt, why the unit is not done ("": it is), live
--          "done,failed,kind=count,..." of what is kept of it ("": nothing)
-- Answers 1 released, 0 the unit was lost.
-- Sent twice: it gives up what the holder owns, which it does not any more: 0, and a sweep asks for the unit instead.
-- include lib/lease

if not owns() then return 0 end
give_up()
if ARGV[3] == '1' then take_back() end
if ARGV[6] ~= '' then redis.call('HSET', KEYS[1] .. ':live', ARGV[2], ARGV[6])
else redis.call('HDEL', KEYS[1] .. ':live', ARGV[2]) end
redis.call('HDEL', KEYS[1] .. ':blame', ARGV[2])
if ARGV[5] ~= '' then tell('given_back', ARGV[2], ARGV[4], owner(), ARGV[5]) end
return 1
