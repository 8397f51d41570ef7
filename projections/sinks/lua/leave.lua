#!lua
-- Moves a window's edge up to a bucket, none before it being held; or past it: what the bucket holds at this moment is frozen and leaves
-- the window from now on, and a later view in it does not enter the window any more.
--
-- KEYS: state, index of the buckets, the bucket, the same frozen.
-- ARGV: window, its edge as read, number of the bucket, `past` or `to`, names of shorter windows over the same buckets, which must have
--   let go before.
-- Returns 1; 0 when the state is no longer as it was read; -1 when what was frozen before has to be packed first.
local state, index, bucket, frozen = unpack(KEYS)
local window, edge, number, past = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == "past"

if redis.call("HGET", state, "edge:" .. window) ~= edge or redis.call("HEXISTS", state, "leaving:" .. window) == 1 then
  return 0
end
for _, field in ipairs(redis.call("HKEYS", index)) do
  if tonumber(field) >= tonumber(edge) and tonumber(field) < tonumber(number) then
    return 0
  end
end

if not past then
  redis.call("HSET", state, "edge:" .. window, number)
  return 1
end
local total = redis.call("HGET", index, number)
if not total then
  return 0
end
for i = 5, #ARGV do
  local leaving = redis.call("HGET", state, "leaving:" .. ARGV[i])
  if tonumber(redis.call("HGET", state, "edge:" .. ARGV[i])) <= tonumber(number)
    or (leaving and string.match(leaving, "^%d+") == number) then
    return 0
  end
end
if redis.call("EXISTS", bucket) == 1 then
  if redis.call("EXISTS", frozen) == 1 then
    return -1
  end
  redis.call("RENAME", bucket, frozen)
end
redis.call("HSET", state, "edge:" .. window, string.format("%d", number + 1), "leaving:" .. window, number .. " " .. total .. " 0")
return 1
