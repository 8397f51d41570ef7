#!lua
-- Writes what the state begins with, its `epoch` among it, unless it has one.
if redis.call("HEXISTS", KEYS[1], "epoch") == 0 then
  redis.call("HSET", KEYS[1], unpack(ARGV))
end
return 1
