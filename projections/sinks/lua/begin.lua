#!lua
-- Writes a batch of several pieces into the journal and sets the checkpoint on its way.
-- KEYS: checkpoints, state, journal. ARGV: topic/partition, expected offset, next offset, name of the step, the pieces.
local checkpoints, state, journal = unpack(KEYS)
local place, expected, next_offset, name = unpack(ARGV, 1, 4)
local pieces = #ARGV - 4

if redis.call("HGET", checkpoints, place) ~= expected or redis.call("HEXISTS", state, "epoch") == 0 then
  return 0
end
redis.call("UNLINK", journal)
for i = 5, #ARGV do
  redis.call("RPUSH", journal, ARGV[i])
end
redis.call("HSET", checkpoints, place, expected .. ">" .. next_offset .. " " .. pieces, place .. ":step", name)
return 1
