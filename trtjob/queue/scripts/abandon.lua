-- abandon: a worker process is known to be dead: free its unit now instead of waiting for the lease to run out.
-- KEYS[1]  job, hash                trtjob:job:<job>
-- KEYS[2]  lease, string            trtjob:lease:<job>:<unit>     with an end: so long nobody else may claim the unit
-- Touches :holders, :attempts, :live, :blame, :kills, :crashes, :events; the dead worker
-- ARGV     owner, unit, blame ("": somebody ended it), "1" where that was a kill, free kills, node, what else it died
--          of ("": nobody knows)
-- Answers 1 freed, 0 the unit was another's.
-- Sent twice: as release, by the dead worker's name.
-- include lib/lease

local holder = redis.call('HGET', KEYS[1] .. ':holders', ARGV[2])
if not holder or string.match(holder, '|(.*)$') ~= ARGV[1] then return 0 end
local attempt = redis.call('HGET', KEYS[1] .. ':attempts', ARGV[2]) or ''
give_up()
redis.call('HDEL', KEYS[1] .. ':live', ARGV[2])
redis.call('HDEL', KEYS[1] .. ':blame', ARGV[2])  -- of an earlier death
tell('lost', ARGV[2], attempt, ARGV[1], ARGV[3] ~= '' and ARGV[3] or ARGV[7] ~= '' and ARGV[7] or 'killed or ended')
local function killed_often()  -- counted for shards alone, whose commit clears it
  return ARGV[4] == '1' and string.sub(ARGV[2], 1, 6) == 'shard-'
    and redis.call('HINCRBY', KEYS[1] .. ':kills', ARGV[2], 1) > tonumber(ARGV[5])
end
local function blame(cause)  -- and note on which node
  redis.call('HSET', KEYS[1] .. ':blame', ARGV[2], cause)
  local nodes = redis.call('HGET', KEYS[1] .. ':crashes', ARGV[2]) or '|'
  if not string.find(nodes, '|' .. ARGV[6] .. '|', 1, true) then
    redis.call('HSET', KEYS[1] .. ':crashes', ARGV[2], nodes .. ARGV[6] .. '|')
  end
end
if ARGV[3] ~= '' then
  blame(ARGV[3])
elseif killed_often() then  -- perhaps for what this unit needs
  blame(ARGV[7] ~= '' and ARGV[7] or 'SIGKILL')
else
  take_back()
end
return 1
