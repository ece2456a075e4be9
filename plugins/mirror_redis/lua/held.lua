-- Return '1' or '0' for each block: is it here? ARGV[2]: names, one after another.
local found = {}
for at = 1, #ARGV[2] - 31, 32 do
  local is_here = redis.pcall('HEXISTS', P .. 'block:' .. string.sub(ARGV[2], at, at + 31), 'data')
  found[#found + 1] = is_here == 1 and '1' or '0'
end
return table.concat(found)
