#!lua
-- Writes batches of several pieces into the journal of the first one's place, and sets each checkpoint on its way.
-- KEYS: checkpoints, state, journal. ARGV: the moves as JSON, of each topic/partition, expected value of its checkpoint, value on its way
-- and name of its step; then the pieces.
local checkpoints, state, journal = unpack(KEYS)
local moves = cjson.decode(ARGV[1])

for _, move in ipairs(moves) do
  if redis.call("HGET", checkpoints, move[1]) ~= move[2] then
    return 0
  end
end
if redis.call("HEXISTS", state, "epoch") == 0 then
  return 0
end
redis.call("UNLINK", journal)
for i = 2, #ARGV do
  redis.call("RPUSH", journal, ARGV[i])
end
for _, move in ipairs(moves) do
  local place, _, on_its_way, name = unpack(move)
  redis.call("HSET", checkpoints, place, on_its_way, place .. ":step", name)
end
return 1
