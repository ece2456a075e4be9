-- Return a stretch of the change log. ARGV[2]: after, '1' for one salt, salt, '1' for one subject,
-- subject, seq in hex to be larger than, entries at most, bytes at most, rows to look at at most,
-- '1' where the page has entries already.
-- Returns {end of the log, where it stopped, 0 at the end, 1 for more or 2 for not looked yet, rows}.
local after, one_salt, salt, one_subject, subject, since, limit, bytes_max, looks_max,
  begun = record('>' .. string.rep('I4c0', 10), ARGV[2])
limit, bytes_max, looks_max = tonumber(limit), tonumber(bytes_max), tonumber(looks_max)
local log = one_salt == '1' and LOG .. ':' .. salt or LOG
local rows, size, looked, place = {}, 0, 0, after

local function is_wanted(member)
  if one_subject ~= '1' and since == ZEROS then return true end
  local r = redis.pcall('HMGET', P .. member, 'rank', 'facts')
  if r.err or not r[1] or not r[2] then return true end  -- damaged: the reader says so
  local _, _, of = record(FACTS, r[2])
  return string.sub(r[1], 1, 16) > since and (one_subject ~= '1' or of == subject)
end

while true do
  local found = call('ZRANGEBYSCORE', log, '(' .. place, '+inf', 'WITHSCORES', 'LIMIT', 0, 200)
  for i = 1, #found, 2 do
    local member = found[i]
    if looked >= looks_max then return {position(), place, 2, rows} end
    looked = looked + 1
    if is_wanted(member) then
      local row, more = show(member)
      row, more = row or {member}, more or 0
      if #row > 1 then
        local _, _, _, _, _, _, _, _, value = record(FACTS, row[6])
        size = size + (tonumber(value) or 0) + ENTRY_BYTES
      end
      if (begun == '1' or #rows > 0) and (#rows >= limit or size > bytes_max) then
        return {position(), place, 1, rows}
      end
      rows[#rows + 1] = row
      looked = looked + math.floor(more / 2048)
    end
    place = found[i + 1]
  end
  if #found < 400 then return {position(), place, 0, rows} end
end
