-- Set leases. ARGV[3..]: {member, digest, until, lease}. Returns {mark, {code, seq} each}.
local RENEWED, HELD, NOT_HELD = 1, 2, 4
local outcomes = {}
for i = 3, #ARGV do
  local member, digest, ends, lease = record('>' .. string.rep('I4c0', 4), ARGV[i])
  local row = load(member)
  if not row or row.digest ~= digest then
    outcomes[i - 2] = {NOT_HELD, row and row.current or ZEROS}
  elseif ends <= row.ends then
    outcomes[i - 2] = {HELD, row.current}
  else
    local pos = call('HINCRBY', META, 'position', 1)
    call('HSET', P .. member, 'lease', lease, 'until', ends, 'pos', pos)
    call('ZADD', ENDS, tonumber(ends, 16), member)
    move(member, row.salt, pos)
    touch(member)
    outcomes[i - 2] = {RENEWED, row.current}
  end
end
tell()
return {mark or 0, outcomes}
