#!lua
-- Takes a slice of a leaving bucket out of its window, and moves the cursor in the same step. Whatever can fail fails while reading.
--
-- KEYS: state, the window, index of the buckets, then every key of the bucket.
-- ARGV: window, cursor as read, next cursor or nothing at the end, number of the bucket if it is to be forgotten at the end, else nothing,
--   the slice as JSON: {ids, views of each}.
-- Returns 1, 0 when another worker has taken the slice, or the id that the window has lost.
local state, top, index = unpack(KEYS, 1, 3)
local window, cursor, next_cursor, forget = unpack(ARGV, 1, 4)
local ids, views = unpack(cjson.decode(ARGV[5]))

if redis.call("HGET", state, "leaving:" .. window) ~= cursor then
  return 0
end
local stay, gone = { "ZADD", top }, { "ZREM", top }
if #ids > 0 then
  local scores = redis.call("ZMSCORE", top, unpack(ids))
  for i = 1, #ids do
    local left = (tonumber(scores[i] or nil) or -1) - views[i]
    if left < 0 then
      return ids[i]
    elseif left == 0 then
      gone[#gone + 1] = ids[i]
    else
      stay[#stay + 1] = left
      stay[#stay + 1] = ids[i]
    end
  end
end

if #stay > 2 then
  redis.call(unpack(stay))
end
if #gone > 2 then
  redis.call(unpack(gone))
  redis.call("HINCRBY", state, "members:" .. window, 2 - #gone)
end
if next_cursor ~= "" then
  redis.call("HSET", state, "leaving:" .. window, next_cursor)
  return 1
end
redis.call("HDEL", state, "leaving:" .. window)
if forget ~= "" then
  redis.call("HDEL", index, forget)
  redis.call("UNLINK", unpack(KEYS, 4))
end
return 1
