#!lua flags=no-writes
-- The number of the first key that holds something else than expected, 0 for none. ARGV: the expected type of each key.
for i, key in ipairs(KEYS) do
  local found = redis.call("TYPE", key).ok
  if found ~= "none" and found ~= ARGV[i] then
    return i
  end
end
return 0
