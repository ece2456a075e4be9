-- Say which registry this is; make one where there is none.
-- ARGV: table, id for a new one (16 bytes), schema version, id of the network, now (ms).
-- Returns {id, schema, network, master_replid, run_id}.
local meta, log = KEYS[1] .. ARGV[1] .. ':meta', KEYS[1] .. ARGV[1] .. ':log'
local replid = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)') or ''
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') or ''
if redis.call('HEXISTS', meta, 'id') == 0 then
  -- Where only `meta` was lost, positions go on behind the log: none is used twice.
  local last = redis.call('ZREVRANGE', log, 0, 0, 'WITHSCORES')
  redis.call('HSET', meta, 'id', ARGV[2], 'schema', ARGV[3], 'network', ARGV[4],
    'position', last[2] or '0', 'first', last[2] or '0', 'floor', ARGV[5])
end
-- Another server, or this one after a restart: it may have lost the last nonces that were used up.
if redis.call('HGET', meta, 'server') ~= replid .. run then
  local floor = tonumber(redis.call('HGET', meta, 'floor') or '0')
  redis.call('HSET', meta, 'server', replid .. run,
    'floor', string.format('%.0f', math.max(floor, tonumber(ARGV[5]))))
end
local m = redis.call('HMGET', meta, 'id', 'schema', 'network')
return {m[1], m[2], m[3], replid, run}
