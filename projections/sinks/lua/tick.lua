#!lua
-- Notes how late it is, never backwards, and returns the state; nothing where nothing was prepared.
local state, now_ms = KEYS[1], ARGV[1]
if redis.call("HEXISTS", state, "epoch") == 0 then
  return {}
end
if tonumber(now_ms) > tonumber(redis.call("HGET", state, "ticked_ms") or -1) then
  redis.call("HSET", state, "ticked_ms", now_ms)
end
return redis.call("HGETALL", state)
