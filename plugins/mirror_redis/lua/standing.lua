-- Say what stands in slots. ARGV[2..]: members. Returns {rank, until, 1 where readers find it} each;
-- {'', '', 0} for what is not there or is damaged.
local found = {}
for i = 2, #ARGV do
  local member = ARGV[i]
  local r = redis.pcall('HMGET', P .. member, 'rank', 'until', 'item')
  if r.err or not r[1] or not r[2] or not r[3] then
    found[i - 1] = {'', '', 0}
  else
    local listed = call('ZSCORE', LOG, member) and call('ZSCORE', TARGETS, member)
    found[i - 1] = {r[1], r[2], listed and 1 or 0}
  end
end
return found
