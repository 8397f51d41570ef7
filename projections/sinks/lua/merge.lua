#!lua
-- Merges registers, in each of which the greatest moment wins, and moves the checkpoint, or does neither. Whatever can fail fails while
-- reading.
--
-- KEYS: checkpoints, state, journal, then the hashes.
-- ARGV: topic/partition, expected and next value of its checkpoint, channel, message, name of the step, then for each register: number of its key from 1, field, moment, value.
-- A register is kept as `moment value`; the moment is in microseconds since 1970, which a Lua number holds exactly.
local checkpoints, state, journal = unpack(KEYS, 1, 3)
local place, expected, next_value, channel, message, name = unpack(ARGV, 1, 6)

if redis.call("HGET", checkpoints, place) ~= expected then
  return { "moved" }
end
if redis.call("HEXISTS", state, "epoch") == 0 then
  return { "moved" } -- the checkpoint read again prepares anew
end

local writes = {}
if string.find(expected, ">", 1, true) then
  redis.call("LLEN", journal) -- fails on a wrong type
  writes[1] = { "LPOP", journal }
else
  writes[1] = { "HSET", checkpoints, place .. ":step", name }
end
for i = 7, #ARGV, 4 do
  local key, field, moment, value = KEYS[3 + ARGV[i]], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local kept = redis.pcall("HGET", key, field)
  if type(kept) == "table" and kept.err then
    return { "refused", tonumber(ARGV[i]), kept.err }
  end
  if not kept or tonumber(string.match(kept, "^%d+")) <= tonumber(moment) then
    writes[#writes + 1] = { "HSET", key, field, moment .. " " .. value }
  end
end

for _, write in ipairs(writes) do
  redis.call(unpack(write))
end
redis.call("HSET", checkpoints, place, next_value)
if message ~= "" then
  redis.pcall("PUBLISH", channel, message)
end
return { "applied" }
