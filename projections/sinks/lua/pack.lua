#!lua
-- Freezes what a closed bucket holds, so that it can be read at leisure; and puts one compressed value in the place of what was frozen.
-- While the bucket leaves a window, what leaves must stay as it is: then nothing is done.
--
-- KEYS: state, the bucket, the same frozen, the same packed.
-- ARGV: number of the bucket, digest of the packed value as read, the new packed value or nothing to freeze, names of the windows.
-- Returns 1 when there is something frozen to be packed.
local state, bucket, frozen, packed = unpack(KEYS)
local number, digest, value = unpack(ARGV, 1, 3)

for i = 4, #ARGV do
  local leaving = redis.call("HGET", state, "leaving:" .. ARGV[i])
  if leaving and string.match(leaving, "^%d+") == number then
    return 0
  end
end
if value == "" then
  if redis.call("EXISTS", bucket) == 1 and redis.call("EXISTS", frozen) == 0 then
    redis.call("RENAME", bucket, frozen)
  end
elseif redis.call("EXISTS", frozen) == 1 and redis.sha1hex(redis.call("GET", packed) or "") == digest then
  redis.call("SET", packed, value)
  redis.call("UNLINK", frozen)
end
return redis.call("EXISTS", frozen)
