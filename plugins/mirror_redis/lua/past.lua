-- Return replaced items of a slot, newest first. ARGV[2]: member, first, how many, bytes to stop
-- behind. Returns {'1' where it stopped for the bytes, rows…}.
local member, first, count, bytes_max = record('>' .. string.rep('I4c0', 4), ARGV[2])
local size = 0
for at = tonumber(first), tonumber(first) + tonumber(count) - 1 do
  if size > tonumber(bytes_max) then return {1, added()} end
  local text = redis.pcall('LINDEX', P .. 'past:' .. member, at)
  if type(text) ~= 'string' then break end
  local _, _, _, rank, pos, ipos, facts, lease, item =
    record('>' .. string.rep('I4c0', 9), text)
  add(rank and rank ~= '' and {rank, '', pos, ipos, facts, item, lease, member} or {member})
  size = size + #text
end
return {0, added()}
