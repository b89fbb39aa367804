-- Who holds a unit. Takes KEYS[1] job, KEYS[2] lease, ARGV[1] holder, ARGV[2] unit. The last one that claimed a unit
-- and has not given it up is in :holders; the lease only says for how long nobody else may claim it.
-- include lib/job

local function owner() return string.match(ARGV[1], '([^|]*)$') end
local function owns() return redis.call('HGET', KEYS[1] .. ':holders', ARGV[2]) == ARGV[1] end
local function give_up()
  redis.call('HDEL', KEYS[1] .. ':holders', ARGV[2])
  redis.call('DEL', KEYS[2])
  -- The owner's own record says what it holds: "unit:<job>:<unit>".
  redis.pcall('HDEL', KEY.worker .. owner(), 'unit:' .. job_id() .. ':' .. ARGV[2])
end
local function forget_attempts()  -- the unit is done
  for _, part in ipairs({'blame', 'attempts', 'kills', 'crashes'}) do
    redis.call('HDEL', KEYS[1] .. ':' .. part, ARGV[2])
  end
end
local function take_back()  -- the attempt does not count
  if redis.call('HINCRBY', KEYS[1] .. ':attempts', ARGV[2], -1) <= 0 then
    redis.call('HDEL', KEYS[1] .. ':attempts', ARGV[2])
  end
end
