-- Return what is held: of every salt, or of the signers in ARGV[2..]. {name, items, bytes…} each.
if #ARGV == 1 then
  local found = {}
  local items = call('HGETALL', P .. 'salts:items')
  for i = 1, #items, 2 do
    found[#found + 1] = items[i]
    found[#found + 1] = items[i + 1]
    found[#found + 1] = call('HGET', P .. 'salts:bytes', items[i]) or '0'
  end
  return found
end
local found = {}
for i = 2, #ARGV do
  found[#found + 1] = ARGV[i]
  found[#found + 1] = call('HGET', P .. 'signers:items', ARGV[i]) or '0'
  found[#found + 1] = call('HGET', P .. 'signers:bytes', ARGV[i]) or '0'
end
return found
