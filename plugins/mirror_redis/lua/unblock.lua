-- Forget the bytes of damaged blocks, so that they are missing and can be sent again.
-- ARGV[3..]: name, SHA1 of what was found there (in hex).
for i = 3, #ARGV, 2 do
  local key = P .. 'block:' .. ARGV[i]
  local data = redis.pcall('HGET', key, 'data')
  if type(data) == 'string' and redis.sha1hex(data) == ARGV[i + 1] then call('HDEL', key, 'data') end
end
return 1
