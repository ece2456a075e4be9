-- Return a stretch of the change log. ARGV[2]: after, '1' for one salt, salt, '1' for one subject,
-- subject, seq in hex to be larger than, entries at most, bytes at most, rows to look at at most,
-- '1' where the page has entries already.
-- Returns {end of the log, where it stopped, 0 at the end, 1 for more or 2 for not looked yet, rows…}.
local after, one_salt, salt, one_subject, subject, since, limit, bytes_max, looks_max,
  begun = record('>' .. string.rep('I4c0', 10), ARGV[2])
limit, bytes_max, looks_max = tonumber(limit), tonumber(bytes_max), tonumber(looks_max)
local log = one_salt == '1' and LOG .. ':' .. salt or LOG
local size, looked, place = 0, 0, after
local floor, byte = math.floor, string.byte
local count, every_one = 0, one_subject ~= '1' and since == ZEROS

local function is_wanted(member)
  local r = redis.pcall('HMGET', P .. member, 'rank', 'facts')
  if r.err or not r[1] or not r[2] then return true end  -- damaged: the reader says so
  local _, _, of = record(FACTS, r[2])
  return string.sub(r[1], 1, 16) > since and (one_subject ~= '1' or of == subject)
end

-- The last of facts, in decimal: its length stands before it, and is no digit.
local function value_size(facts)
  if #facts < 6 then return 0 end  -- of nobody here: the reader drops it
  local a, b, c, d, e, f = byte(facts, -6, -1)
  if a == 5 then return b * 10000 + c * 1000 + d * 100 + e * 10 + f - 533328 end
  if b == 4 then return c * 1000 + d * 100 + e * 10 + f - 53328 end
  if c == 3 then return d * 100 + e * 10 + f - 5328 end
  if d == 2 then return e * 10 + f - 528 end
  return e == 1 and f - 48 or 0
end

while true do
  local found = call('ZRANGEBYSCORE', log, '(' .. place, '+inf', 'WITHSCORES', 'LIMIT', 0, 200)
  for i = 1, #found, 2 do
    local member = found[i]
    if looked >= looks_max then return {position(), place, 2, added()} end
    looked = looked + 1
    if every_one or is_wanted(member) then
      local row, more = show(member)
      row, more = row or {member}, more or 0
      if #row > 1 then
        size = size + value_size(row[5]) + ENTRY_BYTES
      end
      if (begun == '1' or count > 0) and (count >= limit or size > bytes_max) then
        return {position(), place, 1, added()}
      end
      count = count + 1
      add(row)
      if more >= 2048 then looked = looked + floor(more / 2048) end
    end
    place = found[i + 1]
  end
  if #found < 400 then return {position(), place, 0, added()} end
end
