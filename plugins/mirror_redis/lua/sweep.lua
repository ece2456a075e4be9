-- Drop what has ended, and blocks that nobody refers to. ARGV[3]: now_s, time of grace, how many
-- at most, by how much now_s may be ahead of Redis' own clock (0: any). The end is looked at and the
-- slot dropped in one step: what is newer stays (O21, L4).
-- Returns {mark, slots dropped or -1 where the caller's clock is wrong, '1' for more}.
local now, grace, limit, ahead_max = record('>' .. string.rep('I4c0', 4), ARGV[3])
now, grace, limit, ahead_max = tonumber(now), tonumber(grace), tonumber(limit), tonumber(ahead_max)
if ahead_max > 0 and now > tonumber(call('TIME')[1]) + ahead_max then return {0, -1, 0} end
local dropped, looked = 0, 0
for _, member in ipairs(call('ZRANGEBYSCORE', ENDS, '-inf', '(' .. now, 'LIMIT', 0, limit)) do
  looked = looked + 1
  local row = load(member)
  if not row then
    call('ZREM', ENDS, member)
  elseif tonumber(row.ends, 16) >= now then  -- an index that was tampered with
    call('ZADD', ENDS, tonumber(row.ends, 16), member)
  else
    forget(row, now)
    dropped = dropped + 1
  end
end
local more = looked == limit
for _, name in ipairs(call('ZRANGEBYSCORE', IDLE, 1, now - grace, 'LIMIT', 0, limit)) do
  call('DEL', P .. 'block:' .. name)
  call('ZREM', IDLE, name)
  looked = looked + 1
end
-- Since when is not known (0), or the clock was set back.
for _, range in ipairs({{'-inf', '(1'}, {'(' .. now, '+inf'}}) do
  for _, name in ipairs(call('ZRANGEBYSCORE', IDLE, range[1], range[2], 'LIMIT', 0, limit)) do
    call('ZADD', IDLE, now, name)
    looked = looked + 1
  end
end
tell()
return {mark or 0, dropped, (more or looked >= limit) and 1 or 0}
