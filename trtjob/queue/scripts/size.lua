-- size: measure a record before it is read.
-- KEYS[1]  record, hash             rq:job:<message>              RQ's
-- ARGV     most fields
-- Answers the bytes of its names and values, -1 where it has more fields than that.
-- Sent twice: it reads.

if redis.call('HLEN', KEYS[1]) > tonumber(ARGV[1]) then return -1 end
local bytes = 0
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  bytes = bytes + #field + redis.call('HSTRLEN', KEYS[1], field)
end
return bytes
