-- Forget slots as if never seen. ARGV[3..]: {member, position or ''} each; with a position only
-- where the slot did not change since, with '?' only where it cannot be read.
-- Returns {mark, how many there were}.
local dropped = 0
for i = 3, #ARGV do
  local member, pos = record('>I4c0I4c0', ARGV[i])
  local row = load(member)
  local is_meant = pos == '' or row and tonumber(pos) == row.pos
  if pos == '?' then is_meant = #(show(member) or {}) == 1 end
  if row and is_meant then
    forget(row, 0)
    dropped = dropped + 1
  end
end
tell()
return {mark or 0, dropped}
