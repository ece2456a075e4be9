-- Forget slots as if never seen. ARGV[3..]: {member, position or ''} each; with a position only
-- where the slot did not change since. Returns {mark, how many there were}.
local dropped = 0
for i = 3, #ARGV do
  local member, pos = record('>I4c0I4c0', ARGV[i])
  local row = load(member)
  if row and (pos == '' or tonumber(pos) == row.pos) then
    forget(row, 0)
    dropped = dropped + 1
  end
end
tell()
return {mark or 0, dropped}
