-- Drop what has ended, and blocks that nobody refers to. ARGV[3]: now_s, time of grace, how many
-- at most. The end is looked at and the slot dropped in one step: what is newer stays (O21, L4).
local now, grace, limit = record('>' .. string.rep('I4c0', 3), ARGV[3])
now, grace, limit = tonumber(now), tonumber(grace), tonumber(limit)
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
