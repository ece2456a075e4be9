-- Say which store this is; make one where there is none.
-- ARGV: id for a new store (16 bytes), schema version, id of the network.
-- Returns {id, schema, network}.
local meta = KEYS[1] .. 'meta'
if redis.call('HEXISTS', meta, 'id') == 0 then
  -- Where only `meta` was lost, positions go on behind the log: none is used twice.
  local last = redis.call('ZREVRANGE', KEYS[1] .. 'log', 0, 0, 'WITHSCORES')
  redis.call('HSET', meta, 'id', ARGV[1], 'schema', ARGV[2], 'network', ARGV[3],
    'position', last[2] or '0')
end
return redis.call('HMGET', meta, 'id', 'schema', 'network')
