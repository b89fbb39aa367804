-- The sets that a job is in, its end, and its removal. Takes KEYS[1] job. Touches trtjob:jobs, trtjob:state:<state>,
-- trtjob:queue:<queue>:<state>, trtjob:queue:<queue>:ended, and what `announce` writes.
-- include lib/events

local function job_id() return string.match(KEYS[1], '([^:]+)$') end
local function leave()  -- the sets that the job is in
  local found = redis.pcall('HMGET', KEYS[1], 'state', 'queue')
  if found.err or not found[1] then return end  -- what is there is not ours
  local state, queue = unpack(found)
  local of_queue = KEY.queue .. (queue or '')
  redis.call('SREM', KEY.state .. state, job_id())
  redis.call('SREM', of_queue .. ':' .. state, job_id())
  redis.call('ZREM', of_queue .. KEY.ended, job_id())
end
local function enter(state, ...)  -- with other fields; the sets make jobs quick to count and to find
  leave()
  redis.call('HSET', KEYS[1], 'state', state, ...)
  local of_queue = KEY.queue .. (redis.call('HGET', KEYS[1], 'queue') or '')
  redis.call('SADD', KEY.state .. state, job_id())
  redis.call('SADD', of_queue .. ':' .. state, job_id())
  if has_ended[state] then  -- and waits for nothing
    redis.call('ZADD', of_queue .. KEY.ended, redis.call('TIME')[1], job_id())
    redis.call('SREM', KEY.degraded, job_id())
    redis.call('HDEL', KEYS[1], 'degraded', 'aside_since')
    redis.call('DEL', KEYS[1] .. ':aside')
  end
end
local function announce()  -- an end, to who waits for it, as things stand now; see trtjob.queue.notifications
  local state, url = unpack(redis.call('HMGET', KEYS[1], 'state', 'notify'))
  if not url or not has_ended[state] or state == 'stopped' then return end
  redis.call('HDEL', KEYS[1], 'notify')
  local time = redis.call('TIME')
  local delivery = string.sub(redis.sha1hex(job_id() .. ' ' .. time[1] .. ' ' .. time[2]), 1, 16)  -- of no other end
  local notice = KEY.notice .. delivery
  redis.call('HSET', notice, 'job_id', job_id(), 'url', url, 'at', 0, 'since', time[1])
  for _, name in ipairs({'spec', 'state', 'message', 'images', 'ok', 'failed', 'skipped', 'finished_at'}) do
    redis.call('HSET', notice, name, redis.call('HGET', KEYS[1], name) or '')
  end
  redis.call('EXPIRE', notice, LIMIT.notice_s)
  local queue = redis.call('HGET', KEYS[1], 'queue') or ''
  local waiting = KEY.notices .. (queue == '' and '' or ':' .. queue)
  redis.pcall('SADD', waiting, delivery)  -- a job ends also where somebody has put something else there
end
local function recover()
  redis.call('HDEL', KEYS[1], 'aside_since')
  redis.call('SREM', KEY.degraded, job_id())
  if redis.call('HDEL', KEYS[1], 'degraded') == 1 then tell('recovered', '', '', '', '') end
end
local function forget()
  leave()
  redis.call('ZREM', KEY.jobs, job_id())
  redis.call('SREM', KEY.degraded, job_id())
  for _, unit in ipairs(redis.pcall('HKEYS', KEYS[1] .. ':holders')) do
    redis.call('DEL', KEY.lease .. job_id() .. ':' .. unit)
  end
  redis.call('DEL', KEYS[1])
  for _, part in ipairs(KEY.parts) do redis.call('DEL', KEYS[1] .. ':' .. part) end
end
