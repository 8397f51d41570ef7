#!lua
-- Gives films their numbers: appends ids to the list, whose places they are. Nothing is done where another worker has appended meanwhile,
-- or the state is gone. KEYS: state, the list. ARGV: the length of the list as read, ids.
local state, numbered = unpack(KEYS)
if redis.call("HEXISTS", state, "epoch") == 0 or redis.call("LLEN", numbered) ~= tonumber(ARGV[1]) then
  return 0
end
redis.call("RPUSH", numbered, unpack(ARGV, 2))
return 1
