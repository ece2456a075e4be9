-- What every script of a registry begins with. KEYS[1] is the prefix of all keys, ARGV[1] the
-- registry that the caller believes in: id ‖ master_replid ‖ run_id; ARGV[2] the table.
-- Subjects are hex. Times (`until`, ms) and stamps (ns) are 16 hex digits: text that compares as
-- numbers do, for Lua's numbers hold 53 bits.
local T = KEYS[1] .. ARGV[2] .. ':'
local META, LOG, ENDS, GONE, SIZES = T .. 'meta', T .. 'log', T .. 'ends', T .. 'gone', T .. 'sizes'
local call = redis.call
local info = call('INFO', 'replication')
local found = (call('HGET', META, 'id') or '') .. (string.match(info, 'master_replid:(%x+)') or '')
  .. (string.match(call('INFO', 'server'), 'run_id:(%x+)') or '')
if found ~= ARGV[1] then
  return redis.error_reply('ANOTHERSTORE this is not the registry that was opened')
end

local function number(name) return tonumber(call('HGET', META, name) or '0') or 0 end
local function text(value) return string.format('%.0f', value) end
local function nonce_of(subject)
  return math.max(tonumber(call('GET', T .. 'nonces:' .. subject) or '0') or 0, number('floor'))
end
local function pairs_of(flat)
  local held = {}
  for i = 1, #flat, 2 do held[flat[i]] = flat[i + 1] end
  return held
end
