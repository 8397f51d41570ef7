#!lua
-- Reads a checkpoint; the first time it is set at offset 0 of the log it is asked about. Nothing where nothing was prepared.
local checkpoints, state = KEYS[1], KEYS[2]
local place, log = ARGV[1], ARGV[2]

if redis.call("HEXISTS", state, "epoch") == 0 then
  return {}
end
if redis.call("HEXISTS", checkpoints, place) == 0 then
  redis.call("HSET", checkpoints, place, 0, place .. ":log", log)
end
return redis.call("HMGET", checkpoints, place, place .. ":log")
