-- clear_rubbish: remove the names that RQ ends a worker for: its own are letters, digits, "_" and "-".
-- KEYS     lists                    rq:queue:<queue>, and RQ's of those taken
-- ARGV     none
-- Answers how many were removed.
-- Sent twice: it removes what is there.

local count = 0
for _, list in ipairs(KEYS) do
  for _, name in ipairs(redis.call('LRANGE', list, 0, -1)) do
    if string.find(name, '[^%w_-]') then count = count + redis.call('LREM', list, 1, name) end
  end
end
return count
