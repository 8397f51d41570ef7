#!lua flags=no-writes
-- The first k films of a window that are not deleted, and the state that tells what the window is.
--
-- KEYS: state, the window, deleted. ARGV: k, then the fields of the state.
-- Returns the fields' values and a list of id, views, id, views and so on.
local state, top, deleted = unpack(KEYS)
local k = tonumber(ARGV[1])

local items, from = {}, 0
while #items < 2 * k do
  local missing = k - #items / 2
  local found = redis.call("ZREVRANGE", top, from, from + missing - 1, "WITHSCORES")
  if #found == 0 then
    break
  end
  from = from + missing
  local ids = {}
  for i = 1, #found, 2 do
    ids[#ids + 1] = found[i]
  end
  for i, gone in ipairs(redis.call("SMISMEMBER", deleted, unpack(ids))) do
    if gone == 0 then
      items[#items + 1] = found[2 * i - 1]
      items[#items + 1] = found[2 * i]
    end
  end
end
return { redis.call("HMGET", state, unpack(ARGV, 2)), items }
