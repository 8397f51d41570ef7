#!lua
-- Removes keys that a drop left behind, unless another worker has prepared the state in the meantime.
if redis.call("HEXISTS", KEYS[1], "epoch") == 1 then
  return 0
end
redis.call("UNLINK", unpack(KEYS, 2))
return 1
