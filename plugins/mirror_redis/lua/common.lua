-- What every script begins with. KEYS[1] is the prefix of all keys, ARGV[1] the store that the
-- caller believes in: id ‖ master_replid. A restored backup and another primary are another store.
local P = KEYS[1]
local META, LOG, TARGETS = P .. 'meta', P .. 'log', P .. 'targets'
local call, struct_pack, struct_unpack = redis.call, struct.pack, struct.unpack
local ENTRY_BYTES, ITEM_BYTES_MAX, FIELD_BYTES_MAX = 300, 98304, 8192
local LENGTHS = '>I4I4I4I4I4I4I4I4'
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

-- One row as readers get it: rank, until, pos, ipos, facts, item, lease, member; {member} where it
-- is not what this schema writes; nil for none. Its size is asked first: others may have put
-- anything there (M10).
local function show(member)
  local key = P .. member
  local size = redis.pcall('HSTRLEN', key, 'item')
  if type(size) == 'table' then return {member} end
  if size == 0 then
    if call('EXISTS', key) == 1 then return {member} end
    return nil
  end
  if size > ITEM_BYTES_MAX then return {member}, 0 end
  local r = call('HMGET', key, 'rank', 'until', 'pos', 'ipos', 'facts', 'item', 'lease')
  local rank, ends, pos, ipos, facts, lease = r[1], r[2], r[3], r[4], r[5], r[7] or ''
  if not (rank and ends and pos and ipos and facts) or rank == '' then return {member} end
  size = size + #rank + #ends + #pos + #ipos + #facts + #lease
  if size > FIELD_BYTES_MAX and math.max(#rank, #ends, #pos, #ipos, #facts, #lease)
      > FIELD_BYTES_MAX then
    return {member}
  end
  r[7], r[8] = lease, member
  return r, size
end

-- Rows as one string each, and the lengths of their fields in one more: a reply of nested arrays
-- costs Redis and its reader several times as much as all the rest (measured).
local lengths, fields = {}, {}
local function add(r)
  local n = #fields + 1
  fields[n] = table.concat(r)
  if #r == 1 then
    lengths[n] = struct_pack(LENGTHS, 0, 0, 0, 0, 0, 0, 0, #r[1])
  else
    lengths[n] = struct_pack(LENGTHS, #r[1], #r[2], #r[3], #r[4], #r[5], #r[6], #r[7], #r[8])
  end
end
local function added() return table.concat(lengths), fields end
