-- Return a stretch of the change log. ARGV: 3 after, or '' for all live ones; 4 now; 5 listings at
-- most, 6 bytes at most.
-- Returns {where nothing is missing from, end of the log, where it stopped, 1 for more, rows};
-- a row is {subject, key, body, …}.
local after, now, limit, bytes_max = ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local rows, size, place = {}, 0, after == '' and '0' or after

local function row_of(subject)
  local flat, lives = redis.pcall('HGETALL', T .. 'entries:' .. subject),
    redis.pcall('HGETALL', T .. 'lives:' .. subject)
  local row = {subject}
  if flat.err or lives.err then return row end  -- somebody else's keys: it lists nothing
  local bodies = pairs_of(flat)
  for i = 1, #lives, 2 do
    if bodies[lives[i]] and string.sub(lives[i + 1], 1, 16) > now then
      row[#row + 1], row[#row + 2] = lives[i], bodies[lives[i]]
    end
  end
  return row
end

while true do
  local some = call('ZRANGEBYSCORE', LOG, '(' .. place, '+inf', 'WITHSCORES', 'LIMIT', 0, limit + 1)
  for i = 1, #some, 2 do
    local more = tonumber(call('HGET', SIZES, some[i]) or '0')
    if #rows > 0 and (#rows >= limit or size + more > bytes_max) then
      return {text(number('first')), text(number('position')), place, 1, rows}
    end
    local row = row_of(some[i])
    if #row > 1 or after ~= '' then
      rows[#rows + 1] = row
      size = size + more
    end
    place = some[i + 1]
  end
  if #some < 2 * (limit + 1) then
    return {text(number('first')), text(number('position')), text(number('position')), 0, rows}
  end
end
