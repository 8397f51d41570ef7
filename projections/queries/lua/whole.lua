#!lua flags=no-writes
-- All of a board that one question is about, at one moment. KEYS: state, checkpoints, deleted, then as many windows as ARGV says, then the
-- journals of the checkpoints. Returns the hashes, the set, the windows with their scores, the pieces of each journal.
local windows = tonumber(ARGV[1])
local found = { redis.call("HGETALL", KEYS[1]), redis.call("HGETALL", KEYS[2]), redis.call("SMEMBERS", KEYS[3]), {}, {} }
for i = 4, #KEYS do
  if i <= 3 + windows then
    found[4][i - 3] = redis.call("ZRANGE", KEYS[i], 0, -1, "WITHSCORES")
  else
    found[5][i - 3 - windows] = redis.call("LRANGE", KEYS[i], 0, -1)
  end
end
return found
