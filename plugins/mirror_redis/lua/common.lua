-- What every script begins with. KEYS[1] is the prefix of all keys, ARGV[1] the store that the
-- caller believes in: id ‖ master_replid. A restored backup and another primary are another store.
local P = KEYS[1]
local META, LOG, TARGETS = P .. 'meta', P .. 'log', P .. 'targets'
local call, struct_pack, struct_unpack = redis.call, struct.pack, struct.unpack
local ENTRY_BYTES, ITEM_BYTES_MAX, FIELD_BYTES_MAX = 300, 98304, 8192
local ZEROS = '0000000000000000'

local info = call('INFO', 'replication')
local replid = string.match(info, 'master_replid:(%x+)')
if (call('HGET', META, 'id') or '') .. (replid or '') ~= ARGV[1] then
  return redis.error_reply('ANOTHERSTORE this is not the store that was opened')
end

-- A record is strings, each with its length before it (u32, big endian).
local function record(format, text)
  local r = {pcall(struct_unpack, format, text)}
  if r[1] then return unpack(r, 2) end
end
local FACTS = '>' .. string.rep('I4c0', 9)

local function position() return tonumber(call('HGET', META, 'position')) or 0 end

-- One row as readers get it; {member} where it is not what this schema writes; nil for none.
local function show(member)
  local size = redis.pcall('HSTRLEN', P .. member, 'item')
  if type(size) == 'table' then return {member} end
  if size == 0 then
    if call('EXISTS', P .. member) == 1 then return {member} end
    return nil
  end
  if size > ITEM_BYTES_MAX then return {member}, 0 end
  local r = call('HMGET', P .. member, 'rank', 'until', 'pos', 'ipos', 'facts', 'item', 'lease')
  local total = 0
  for i = 1, 6 do
    if not r[i] or (i < 6 and #r[i] > FIELD_BYTES_MAX) then return {member} end
    total = total + #r[i]
  end
  local lease = r[7] or ''
  if #lease > FIELD_BYTES_MAX then return {member} end
  return {member, r[1], r[2], r[3], r[4], r[5], r[6], lease}, total + #lease
end
