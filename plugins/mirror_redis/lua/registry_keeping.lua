-- What scripts that change something share: what becomes of a subject's place in the indexes.
-- Redis before 7 lets scripts write where min-replicas-to-write would refuse a plain command.
if string.match(info, 'min_slaves_good_slaves:(%d+)') == '0' then
  return redis.error_reply('NOREPLICAS Not enough good replicas to write.')
end
local CHUNK = 1000

local function call_many(name, key, words)
  for at = 1, #words, CHUNK do
    call(name, key, unpack(words, at, math.min(at + CHUNK - 1, #words)))
  end
end

-- Write where a subject stands now: how many bytes it lists, when the first of its entries ends
-- (nil: it lists nothing), and, for a change, that it is the latest of the log.
local function place(subject, size, ends, now, is_changed)
  if ends then call('ZADD', ENDS, tonumber(ends, 16), subject) end
  if not is_changed then return end
  local before = tonumber(call('HGET', SIZES, subject) or '0')
  call('ZADD', LOG, call('HINCRBY', META, 'position', 1), subject)
  if size ~= before then call('HINCRBY', META, 'bytes', size - before) end
  if ends then
    call('HSET', SIZES, subject, size)
    call('ZREM', GONE, subject)
  else
    call('DEL', T .. 'entries:' .. subject, T .. 'lives:' .. subject)
    call('HDEL', SIZES, subject)
    call('ZREM', ENDS, subject)
    call('ZADD', GONE, tonumber(now, 16), subject)
  end
end

local function tell(channel)  -- at best: a user who may not publish has written all the same
  redis.pcall('PUBLISH', channel, call('HGET', META, 'position') .. ' change')
end
