-- Events of a job, and which calls it has seen. Takes KEYS[1] job. A call has a name of its own: what the client sends
-- once more, since the reply was lost, has the same one. Touches :events (stream), :calls (list).

local function tell(event, unit, attempt, worker, detail)
  redis.pcall('XADD', KEYS[1] .. ':events', 'MAXLEN', '~', LIMIT.events, '*',
    'event', event, 'unit', unit, 'attempt', attempt, 'worker', worker, 'detail', detail)
end
local function was_done(call) return type(redis.pcall('LPOS', KEYS[1] .. ':calls', call)) == 'number' end
local function note_done(call)
  redis.pcall('LPUSH', KEYS[1] .. ':calls', call)
  redis.pcall('LTRIM', KEYS[1] .. ':calls', 0, LIMIT.calls - 1)
end
