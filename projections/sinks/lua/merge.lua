#!lua
-- Merges registers, in each of which the greatest moment wins, forgets viewers for good, and moves the checkpoints, or does neither.
-- Whatever can fail fails while reading.
--
-- KEYS: checkpoints, state, journal, forgotten, then each viewer's set of films, then the hashes.
-- ARGV: the moves as JSON, of each topic/partition, expected and next value of its checkpoint and name of its step; channel, message; the
-- number of viewers, that of hashes, then
-- for each viewer: id, 1 to forget them else 0, what the keys of their hashes begin with;
-- for each hash: number of its viewer from 1, film;
-- for each register: number of its hash from 1, field, moment, value.
-- A register is kept as `moment value`; the moment is in microseconds since 1970, which a Lua number holds exactly.
local checkpoints, state, journal, forgotten = unpack(KEYS, 1, 4)
local moves, channel, message, viewers, hashes = cjson.decode(ARGV[1]), unpack(ARGV, 2, 5)

for _, move in ipairs(moves) do
  if redis.call("HGET", checkpoints, move[1]) ~= move[2] then
    return { "moved" }
  end
end
if redis.call("HEXISTS", state, "epoch") == 0 then
  return { "moved" } -- the checkpoint read again prepares anew
end

local writes = {}
for i, move in ipairs(moves) do
  local place, expected, next_value, name = unpack(move)
  writes[i] = { "HSET", checkpoints, place, next_value, place .. ":step", name }
  if string.find(expected, ">", 1, true) then -- a piece of batches on their way, which come alone
    writes[i] = { "HSET", checkpoints, place, next_value }
  end
end
if string.find(moves[1][2], ">", 1, true) then
  redis.call("LLEN", journal) -- fails on a wrong type
  writes[#writes + 1] = { "LPOP", journal }
end

local at, gone = 6, {}
local somebody_is = redis.call("SCARD", forgotten) > 0
for i = 1, tonumber(viewers) do
  local viewer, is_to_go, begin = unpack(ARGV, at, at + 2)
  at = at + 3
  if is_to_go == "1" then
    local films = redis.pcall("SMEMBERS", KEYS[4 + i])
    if films.err then
      return { "refused", i, films.err }
    end
    for _, film in ipairs(films) do
      writes[#writes + 1] = { "UNLINK", begin .. film }
    end
    writes[#writes + 1] = { "UNLINK", KEYS[4 + i] }
    writes[#writes + 1] = { "SADD", forgotten, viewer }
  end
  gone[i] = is_to_go == "1" or (somebody_is and redis.call("SISMEMBER", forgotten, viewer) == 1)
end

local of = {}
for i = 1, tonumber(hashes) do
  local viewer = tonumber(ARGV[at])
  of[i] = viewer
  if not gone[viewer] then
    local films = KEYS[4 + viewer]
    local kept = redis.pcall("SISMEMBER", films, ARGV[at + 1])
    if type(kept) == "table" then
      return { "refused", viewer, kept.err }
    end
    if kept == 0 then
      writes[#writes + 1] = { "SADD", films, ARGV[at + 1] }
    end
  end
  at = at + 2
end

for i = at, #ARGV, 4 do
  local number = tonumber(ARGV[i])
  if not gone[of[number]] then
    local key, field, moment, value = KEYS[4 + viewers + number], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
    local kept = redis.pcall("HGET", key, field)
    if type(kept) == "table" and kept.err then
      return { "refused", viewers + number, kept.err }
    end
    if not kept or tonumber(string.match(kept, "^%d+")) <= tonumber(moment) then
      writes[#writes + 1] = { "HSET", key, field, moment .. " " .. value }
    end
  end
end

for _, write in ipairs(writes) do
  redis.call(unpack(write))
end
if message ~= "" then
  redis.pcall("PUBLISH", channel, message)
end
return { "applied" }
