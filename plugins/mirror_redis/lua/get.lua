-- Return rows of members. ARGV[2]: bytes to stop behind; ARGV[3..]: members.
-- Returns {end of the log, members looked at, rows…}.
local size, looked = 0, 0
for i = 3, #ARGV do
  if size > tonumber(ARGV[2]) then break end
  looked = looked + 1
  local row, more = show(ARGV[i])
  if row then
    add(row)
    size = size + (more or 0)
  end
end
return {position(), looked, added()}
