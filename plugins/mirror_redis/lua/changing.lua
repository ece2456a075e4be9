-- What scripts that change something share. ARGV[2] says who writes, and to which channel.
local ENDS, CELLS, IDLE, AGES = P .. 'ends', P .. 'cells', P .. 'idle', P .. 'ages'
local CHANNEL, WRITER = record('>I4c0I4c0', ARGV[2])

-- Redis before 7 lets scripts write where min-replicas-to-write would refuse a plain command.
if string.match(info, 'min_slaves_good_slaves:(%d+)') == '0' then
  return redis.error_reply('NOREPLICAS Not enough good replicas to write.')
end

-- Cells of targets are marked with a number that only grows, also by what the log does not show
-- (drops, sweeps): whoever keeps fingerprints reads the cells again that were marked since.
local mark
local function touch(member)
  mark = mark or call('HINCRBY', META, 'mark', 1)
  call('ZADD', CELLS, mark, string.sub(member, 1, 3))
end
local function tell()  -- at best: a user who may not publish has written all the same
  if mark then redis.pcall('PUBLISH', CHANNEL, mark .. ' ' .. WRITER) end
end

local function count(kind, name, items, bytes)
  local left = items == 0 and 1 or call('HINCRBY', P .. kind .. ':items', name, items)
  if left <= 0 then
    call('HDEL', P .. kind .. ':items', name)
    call('HDEL', P .. kind .. ':bytes', name)
  elseif bytes ~= 0 then
    call('HINCRBY', P .. kind .. ':bytes', name, bytes)
  end
end
local function count_item(row, sign)
  count('salts', row.salt, sign, sign * (row.size + row.tree))
  count('signers', row.signer, sign, sign * (row.size + row.tree))
end

-- Forget a row that nobody can read: its salt is not known, so every salt's index is asked.
local function purge(member)
  call('DEL', P .. member)
  call('ZREM', LOG, member)
  call('ZREM', TARGETS, member)
  call('ZREM', ENDS, member)
  for _, salt in ipairs(call('HKEYS', P .. 'salts:items')) do
    call('ZREM', LOG .. ':' .. salt, member)
    if call('ZREM', TARGETS .. ':' .. salt, member) == 1 then count('salts', salt, -1, 0) end
  end
  touch(member)
end

-- What a decision about a slot needs. nil for an empty slot; a damaged one is emptied.
local function load(member)
  local r = redis.pcall('HMGET', P .. member, 'rank', 'until', 'pos', 'ipos', 'tree', 'facts')
  if not r.err and not r[1] and not r[6] then
    if call('ZSCORE', LOG, member) then purge(member) end
    return nil
  end
  local row = {member = member}
  if not r.err and r[1] and #r[1] == 80 and r[2] and #r[2] == 16 and r[6] then
    row.rank, row.ends, row.pos, row.ipos = r[1], r[2], tonumber(r[3]), tonumber(r[4])
    row.tree, row.facts = tonumber(r[5]) or 0, r[6]
    row.salt, row.signer, row.subject, row.kind, row.digest, row.sender, row.stored, row.writer,
      row.size = record(FACTS, r[6])
    row.size = tonumber(row.size)
  end
  if not (row.pos and row.ipos and row.size) then
    purge(member)
    return nil
  end
  row.seq = string.sub(row.rank, 1, 16)
  row.current = row.kind == '1' and ZEROS or row.seq
  return row
end

-- --- blocks ------------------------------------------------------------------------------------
local function names(refs)
  local list, known = {}, {}
  for at = 1, #refs - 31, 32 do
    local name = string.sub(refs, at, at + 31)
    if not known[name] then
      known[name] = true
      list[#list + 1] = name
    end
  end
  return list, known
end
local function block_size(name) return call('HSTRLEN', P .. 'block:' .. name, 'data') end
local function has_block(name)
  local found = redis.pcall('HEXISTS', P .. 'block:' .. name, 'data')
  if type(found) == 'table' then
    call('DEL', P .. 'block:' .. name)
    return false
  end
  return found == 1
end
local function add_to(name, field, more)
  local key = P .. 'block:' .. name
  if call('EXISTS', key) == 0 then return 0 end
  local left = call('HINCRBY', key, field, more)
  if left < 0 then
    call('HSET', key, field, 0)
    left = 0
  end
  return left
end
local function hold(name)
  add_to(name, 'heads', 1)
  call('ZREM', IDLE, name)
end
local function idle(name, field, now)  -- nobody but `field` may refer to it any more
  local others = call('HGET', P .. 'block:' .. name, field)
  if others == '0' or not others then call('ZADD', IDLE, now, name) end
end
local function release(name, now, becomes_past)
  if becomes_past then add_to(name, 'past', 1) end
  if add_to(name, 'heads', -1) == 0 then idle(name, 'past', now) end
end

-- --- history -----------------------------------------------------------------------------------
local PAST = '>' .. string.rep('I4c0', 9)  -- gone, size, blocks, rank, pos, ipos, facts, lease, item
local function oldest_of(member)
  local gone = record(PAST, call('LINDEX', P .. 'past:' .. member, -1) or '')
  if gone then call('ZADD', AGES, gone, member) else call('ZREM', AGES, member) end
end
local function forget_oldest(member)
  local text = call('RPOP', P .. 'past:' .. member)
  local _, size, blocks = record(PAST, text or '')
  if size then
    call('HINCRBY', META, 'past_bytes', -tonumber(size))
    for _, name in ipairs((names(blocks))) do
      if add_to(name, 'past', -1) == 0 then idle(name, 'heads', 0) end
    end
  end
  oldest_of(member)
  return text
end
local function end_history(member)
  while forget_oldest(member) do end
end
local function remember(row, gone, removed, versions_max, bytes_max)
  local key, r = P .. 'past:' .. row.member, call('HMGET', P .. row.member, 'item', 'lease')
  local size = ENTRY_BYTES + row.size
  for _, name in ipairs(removed) do size = size + block_size(name) end
  local parts = {}
  for i, text in ipairs({tostring(gone), tostring(size), table.concat(removed), row.rank,
      tostring(row.pos), tostring(row.ipos), row.facts, r[2] or '', r[1] or ''}) do
    parts[i] = struct_pack('>I4', #text) .. text
  end
  local held = call('LPUSH', key, table.concat(parts))
  call('HINCRBY', META, 'past_bytes', size)
  if held == 1 then call('ZADD', AGES, gone, row.member) end
  if held > versions_max then forget_oldest(row.member) end
  while tonumber(call('HGET', META, 'past_bytes')) > bytes_max do
    local first = call('ZRANGE', AGES, 0, 0)[1]
    if not first then
      call('HSET', META, 'past_bytes', 0)
      break
    end
    forget_oldest(first)
  end
end

-- --- slots -------------------------------------------------------------------------------------
local function move(member, salt, pos)
  call('ZADD', LOG, pos, member)
  call('ZADD', LOG .. ':' .. salt, pos, member)
end
local function forget(row, now)
  local member = row.member
  count_item(row, -1)
  if row.tree > 0 then
    for _, name in ipairs((names(call('HGET', P .. member, 'refs') or ''))) do
      release(name, now, false)
    end
  end
  end_history(member)
  call('DEL', P .. member)
  for _, index in ipairs({LOG, TARGETS}) do
    call('ZREM', index, member)
    call('ZREM', index .. ':' .. row.salt, member)
  end
  call('ZREM', ENDS, member)
  touch(member)
end
