-- Where a message goes. Takes KEYS[1] list.
-- include lib/messages

-- Insert messages of one job, but for those that wait. Of shards only so many may wait; RQ's records of the others
-- are removed. Returns how many were put.
local function insert(messages, at_front, window)
  local waiting, jobs, is_there = redis.call('LRANGE', KEYS[1], 0, -1), {}, {}
  local job = job_of(messages[1])
  local class, count = class_of(job), 0
  for i, message in ipairs(waiting) do
    jobs[i] = job_of(message)
    is_there[message] = true
    if jobs[i] == job then count = count + 1 end
  end
  local at, stop = 1, 1  -- the class may begin here; the next one begins there
  while waiting[stop] and class_of(jobs[stop]) <= class do
    if class_of(jobs[stop]) < class or (jobs[stop] == job and not at_front) then at = stop + 1 end
    stop = stop + 1
  end
  local put = 0
  for _, message in ipairs(messages) do
    if is_there[message] then
      put = put + 1
    elseif count >= window and shard_of(message) then
      redis.call('DEL', KEY.message .. message)
    else
      local had_turn = {}
      while at < stop and not at_front and not had_turn[jobs[at]] do
        had_turn[jobs[at]] = true
        at = at + 1
      end
      if waiting[at] then
        redis.call('LINSERT', KEYS[1], 'BEFORE', waiting[at], message)
      else
        redis.call('RPUSH', KEYS[1], message)
      end
      count, put = count + 1, put + 1
    end
  end
  return put
end
