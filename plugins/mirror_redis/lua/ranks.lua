-- What fingerprints are made of. ARGV[2]: '1' for one salt, salt, mark after which cells are named
-- ('': none are), rows at most; then pairs of bounds. Returns {mark now, cells marked since, pairs
-- done, last member of the next pair, {member, rank, until}… of each pair}.
local one_salt, salt, since, limit = record('>' .. string.rep('I4c0', 4), ARGV[2])
local index = one_salt == '1' and TARGETS .. ':' .. salt or TARGETS
limit = tonumber(limit)
local mark = call('HGET', META, 'mark') or '0'
local cells = {}
if since ~= '' then
  cells = call('ZRANGEBYSCORE', P .. 'cells', '(' .. since, '+inf')
end
local groups, left = {}, limit
for i = 3, #ARGV, 2 do
  if left <= 0 then return {mark, cells, #groups, '', groups} end
  local group = {}
  local found = call('ZRANGEBYLEX', index, ARGV[i], ARGV[i + 1], 'LIMIT', 0, left)
  for _, member in ipairs(found) do
    local r = redis.pcall('HMGET', P .. member, 'rank', 'until')
    if not r.err and r[1] and r[2] and #r[1] == 80 and #r[2] == 16 then
      group[#group + 1] = member
      group[#group + 1] = r[1]
      group[#group + 1] = r[2]
    end
  end
  groups[#groups + 1] = group
  if #found == left then return {mark, cells, #groups - 1, found[#found], groups} end
  left = left - #found
end
return {mark, cells, #groups, '', groups}
