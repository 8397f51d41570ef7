#!lua
-- Counts one step of views and moves the checkpoints, or does neither. Whatever can fail (another worker, other edges, a key of a wrong
-- type, a lost member) fails while reading; after the first write nothing can.
--
-- KEYS: checkpoints, state, journal, deleted, a sorted set for each window, then the keys that `buckets` refers to.
-- ARGV: the moves as JSON, of each topic/partition, expected and next value of its checkpoint and name of its step; channel, message; edges;
-- the step in MessagePack:
--   windows   their names, in the order of their keys
--   sums      lists of {ids, views of each}
--   tops      for each window the number of its sums, 0 for none
--   buckets   lists of {number of its key, number of its sums}
--   indexes   lists of {number of its key, {fields that buckets have in it, the total of each}}
--   deleted   ids
local checkpoints, state, journal, deleted = unpack(KEYS, 1, 4)
local moves, channel, message, edges, step = cjson.decode(ARGV[1]), ARGV[2], ARGV[3], ARGV[4], cmsgpack.unpack(ARGV[5])
local LARGEST = 2 ^ 53 -- the largest count that a score holds exactly

local function read(command, key, ...)
  local answer = redis.pcall(command, key, ...)
  if type(answer) == "table" and answer.err then
    error({ err = key .. ": " .. answer.err })
  end
  return answer
end

-- The endless window comes last and has no edge.
local function field_of_each_window(name, windows)
  local fields = {}
  for i = 1, windows do
    fields[i] = name .. step.windows[i]
  end
  return read("HMGET", state, unpack(fields))
end

for _, move in ipairs(moves) do
  if read("HGET", checkpoints, move[1]) ~= move[2] then
    return { "moved" }
  end
end
if read("HEXISTS", state, "epoch") == 0 then
  return { "moved" } -- the checkpoint read again prepares anew
end
local held = field_of_each_window("edge:", #step.windows - 1)
if table.concat(held, " ") ~= edges then
  return { "edges", unpack(held) }
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
  read("LLEN", journal) -- fails on a wrong type
  writes[#writes + 1] = { "LPOP", journal }
end

local function summed(command, key, found, sums, number_first)
  local ids, views = unpack(sums)
  local write, added, at = { command, key }, 0, 3
  local id_at, total_at = number_first and 1 or 0, number_first and 0 or 1
  for i = 1, #ids do
    local total, before = views[i], found[i]
    if before then
      total = total + before
    else
      added = added + 1
    end
    if total > LARGEST then
      error({ err = key .. ": would count more than 2^53" })
    end
    write[at + id_at], write[at + total_at] = ids[i], total
    at = at + 2
  end
  writes[#writes + 1] = write
  return added
end

local members = field_of_each_window("members:", #step.windows)
local members_write = { "HSET", state }
for i = 1, #step.windows do
  local key, count = KEYS[4 + i], tonumber(members[i])
  local there = read("ZCARD", key)
  if there ~= count then
    return { "lost", key, there, count }
  end
  if step.tops[i] > 0 then
    local sums = step.sums[step.tops[i]]
    local added = summed("ZADD", key, read("ZMSCORE", key, unpack(sums[1])), sums, true)
    if added > 0 then
      members_write[#members_write + 1] = "members:" .. step.windows[i]
      members_write[#members_write + 1] = count + added
    end
  end
end
if #members_write > 2 then
  writes[#writes + 1] = members_write
end

for _, bucket in ipairs(step.buckets) do
  local key, sums = KEYS[bucket[1]], step.sums[bucket[2]]
  summed("HSET", key, read("HMGET", key, unpack(sums[1])), sums, false)
end
for _, index in ipairs(step.indexes) do
  local key, totals = KEYS[index[1]], index[2]
  summed("HSET", key, read("HMGET", key, unpack(totals[1])), totals, false)
end

if #step.deleted > 0 then
  read("SCARD", deleted) -- fails on a wrong type
  writes[#writes + 1] = { "SADD", deleted, unpack(step.deleted) }
end

for _, write in ipairs(writes) do
  redis.call(unpack(write))
end
if message ~= "" then
  -- Who may not publish has still counted.
  redis.pcall("PUBLISH", channel, message)
end
return { "applied" }
