#!lua flags=no-writes
-- One film's views in every window, at one moment. KEYS: state, the windows. ARGV: the film's id.
local views = { redis.call("HGET", KEYS[1], "ticked_ms") }
for i = 2, #KEYS do
  views[i] = redis.call("ZSCORE", KEYS[i], ARGV[1]) or "0"
end
return views
