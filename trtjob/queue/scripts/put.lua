-- put: insert messages of one job, each at its place.
-- KEYS[1]  list                     rq:queue:<queue>              RQ's: the messages that wait
-- Touches RQ's records of those without room; the priority of each job that waits
-- ARGV     most messages of the job that may wait, "1" for the front of its class, then messages of one job
-- Answers how many were put.
-- Sent twice: it passes over messages that wait; one that was taken meanwhile is doubled, and refused by its claim.
-- include lib/insert

return insert({unpack(ARGV, 3)}, ARGV[2] == '1', tonumber(ARGV[1]))
