-- Return replaced items of a slot, newest first. ARGV[2]: member, first, how many, bytes to stop
-- behind. Returns {'1' where it stopped for the bytes, rows as `show` gives them}.
local member, first, count, bytes_max = record('>' .. string.rep('I4c0', 4), ARGV[2])
local rows, size = {}, 0
for at = tonumber(first), tonumber(first) + tonumber(count) - 1 do
  if size > tonumber(bytes_max) then return {1, rows} end
  local text = redis.pcall('LINDEX', P .. 'past:' .. member, at)
  if type(text) ~= 'string' then break end
  local _, _, _, rank, pos, ipos, facts, lease, item =
    record('>' .. string.rep('I4c0', 9), text)
  if rank then rows[#rows + 1] = {member, rank, '', pos, ipos, facts, item, lease} end
  if not rank then rows[#rows + 1] = {member} end
  size = size + #text
end
return {0, rows}
