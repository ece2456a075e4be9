-- Return rows by target. ARGV[2]: '1' for one salt, salt, low, high (bounds of members), rows at
-- most, bytes to stop behind. Returns {'1' where it stopped for the bytes, rows…}.
local one_salt, salt, low, high, limit, bytes_max = record('>' .. string.rep('I4c0', 6), ARGV[2])
local index = one_salt == '1' and TARGETS .. ':' .. salt or TARGETS
local size = 0
for _, member in ipairs(call('ZRANGEBYLEX', index, low, high, 'LIMIT', 0, tonumber(limit))) do
  if size > tonumber(bytes_max) then return {1, added()} end
  local row, more = show(member)
  add(row or {member})
  size = size + (more or 0)
end
return {0, added()}
