-- End entries whose life is over, oldest first, and forget what is told of no more.
-- ARGV: 3 channel, 4 now (ms, hex), 5 entries at most, 6 by how many seconds now may be ahead of
-- Redis' own clock (0: any), 7 since when gone subjects are forgotten (ms), 8 the number of the
-- first day that is kept, 9 known callers at most.
-- Returns how many ended, or -1 where the caller's clock is wrong.
local channel, now, limit, ahead_max = ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local now_ms = tonumber(now, 16)
if ahead_max > 0 and now_ms > (tonumber(call('TIME')[1]) + ahead_max) * 1000 then return -1 end

-- Returns how many it ended.
local function end_some(subject, most)
  local lives = call('HGETALL', T .. 'lives:' .. subject)
  local over, ends = {}, nil
  for i = 1, #lives, 2 do
    local this = string.sub(lives[i + 1], 1, 16)
    if this <= now then over[#over + 1] = {this, lives[i]} end
  end
  table.sort(over, function(a, b) return a[1] < b[1] or (a[1] == b[1] and a[2] < b[2]) end)
  local gone, size = {}, tonumber(call('HGET', SIZES, subject) or '0')
  for i = 1, math.min(most, #over) do
    local key = over[i][2]
    gone[i] = key
    size = size - #key - call('HSTRLEN', T .. 'entries:' .. subject, key)
  end
  call_many('HDEL', T .. 'entries:' .. subject, gone)
  call_many('HDEL', T .. 'lives:' .. subject, gone)
  for _, life in ipairs(call('HVALS', T .. 'lives:' .. subject)) do
    local this = string.sub(life, 1, 16)
    if not ends or this < ends then ends = this end
  end
  place(subject, size, ends, now, #gone > 0)
  if not ends then call('ZREM', ENDS, subject) end
  return #gone
end

local count = 0
for _, subject in ipairs(call('ZRANGEBYSCORE', ENDS, '-inf', text(now_ms), 'LIMIT', 0, limit)) do
  if count >= limit then break end
  count = count + end_some(subject, limit - count)
end

local first = number('first')
for _, subject in ipairs(call('ZRANGEBYSCORE', GONE, '-inf', ARGV[7], 'LIMIT', 0, 1000)) do
  first = math.max(first, tonumber(call('ZSCORE', LOG, subject) or '0'))
  call('ZREM', LOG, subject)
  call('ZREM', GONE, subject)
end
if first > number('first') then call('HSET', META, 'first', text(first)) end

for _, day in ipairs(call('ZRANGEBYSCORE', T .. 'uptime', '-inf', '(' .. ARGV[8])) do
  call('DEL', T .. 'uptime:' .. day)
  call('ZREM', T .. 'uptime', day)
end

-- A nonce that is forgotten raises the floor above itself: it is never accepted again.
local excess = math.min(call('ZCARD', T .. 'nonces:used') - tonumber(ARGV[9]), 1000)
if excess > 0 then
  local floor = number('floor')
  for _, subject in ipairs(call('ZRANGE', T .. 'nonces:used', 0, excess - 1)) do
    floor = math.max(floor, tonumber(call('GET', T .. 'nonces:' .. subject) or '0'))
    call('DEL', T .. 'nonces:' .. subject)
    call('ZREM', T .. 'nonces:used', subject)
  end
  call('HSET', META, 'floor', text(floor))
end
if count > 0 then tell(channel) end
return count
