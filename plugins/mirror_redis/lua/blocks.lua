-- Return blocks. ARGV[2]: bytes to stop behind, size of the largest; ARGV[3]: names, one after
-- another. Returns {names looked at, block or '' each}.
local bytes_max, block_max = record('>I4c0I4c0', ARGV[2])
local found, size = {}, 0
for at = 1, #ARGV[3] - 31, 32 do
  if size > tonumber(bytes_max) then break end
  local key, block = P .. 'block:' .. string.sub(ARGV[3], at, at + 31), ''
  local length = redis.pcall('HSTRLEN', key, 'data')
  if type(length) ~= 'table' and length > 0 and length <= tonumber(block_max) then
    block = call('HGET', key, 'data')
  end
  found[#found + 1] = block
  size = size + #block
end
return {#found, found}
