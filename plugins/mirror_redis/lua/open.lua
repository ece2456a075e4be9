-- Say which store this is; make one where there is none.
-- ARGV: id for a new store (16 bytes), schema version, id of the network; of a full node also how
-- many versions, and how many bytes, of replaced items are kept: mirrors keep to that ('': a mirror).
-- Returns {id, schema, network}.
local meta = KEYS[1] .. 'meta'
if redis.call('HEXISTS', meta, 'id') == 0 then
  -- Where only `meta` was lost, positions go on behind the log: none is used twice.
  local last = redis.call('ZREVRANGE', KEYS[1] .. 'log', 0, 0, 'WITHSCORES')
  redis.call('HSET', meta, 'id', ARGV[1], 'schema', ARGV[2], 'network', ARGV[3],
    'position', last[2] or '0')
end
local function set(field, value)
  if value ~= '' and redis.call('HGET', meta, field) ~= value then
    redis.pcall('HSET', meta, field, value)  -- at best: it may be full
  end
end
set('past_versions_max', ARGV[4])
set('past_bytes_max', ARGV[5])
return redis.call('HMGET', meta, 'id', 'schema', 'network')
