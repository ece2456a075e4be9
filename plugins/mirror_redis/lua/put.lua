-- Compare and set by rank, in the order given.
-- ARGV[3]: versions, bytes of history ('': as full nodes have set them here), names of blocks that are held back (the caller has them),
-- names of blocks that are given, count of items; then the items, then the blocks given.
-- Returns {mark, {code, seq, missing} each}, or 'again' where a block held back is not here.
local versions_max, bytes_max, held_back, given_names, items =
  record('>' .. string.rep('I4c0', 5), ARGV[3])
if versions_max == '' then
  local set = call('HMGET', META, 'past_versions_max', 'past_bytes_max')
  versions_max, bytes_max = set[1] or 0, set[2] or 0  -- no full node was ever here
end
versions_max, bytes_max, items = tonumber(versions_max), tonumber(bytes_max), tonumber(items)
for _, name in ipairs((names(held_back))) do
  if not has_block(name) then return 'again' end
end
local given = {}
for i, name in ipairs((names(given_names))) do given[name] = ARGV[3 + items + i] end

local STORED, HELD, MISSING, CAS_MISMATCH, SEQ_TOO_LOW = 0, 2, 3, 301, 302
local ITEM = '>' .. string.rep('I4c0', 8)

local function differences(old, refs)
  if not old and refs == '' then return {}, {}, {} end
  local before_refs = old and old.tree > 0 and call('HGET', P .. old.member, 'refs') or ''
  if before_refs == refs then return {}, {}, (names(refs)) end
  local before, was = names(before_refs)
  local after, is = names(refs)
  local added, removed = {}, {}
  for _, name in ipairs(after) do if not was[name] then added[#added + 1] = name end end
  for _, name in ipairs(before) do if not is[name] then removed[#removed + 1] = name end end
  return added, removed, after
end

local function refusal(old, rank, cas, added)
  local current = old and old.current or ZEROS
  if old and old.rank == rank then return {HELD, current, ''} end
  if cas ~= '' and cas ~= current then return {CAS_MISMATCH, current, ''} end
  if old and rank < old.rank then return {SEQ_TOO_LOW, old.seq, ''} end
  local missing = {}
  for _, name in ipairs(added) do
    if not given[name] and not has_block(name) then missing[#missing + 1] = name end
  end
  if #missing > 0 then return {MISSING, current, table.concat(missing)} end
end

local function grow(old, added, removed, now)
  local tree = old and old.tree or 0
  for _, name in ipairs(added) do
    if given[name] and not has_block(name) then
      call('HSET', P .. 'block:' .. name, 'data', given[name])
    end
    hold(name)
    tree = tree + block_size(name)
  end
  for _, name in ipairs(removed) do
    tree = tree - block_size(name)
    release(name, now, versions_max > 0)
  end
  return tree
end

local function put(text)
  local member, rank, ends, cas, refs, now, facts, item = record(ITEM, text)
  local old = load(member)
  local added, removed, after = differences(old, refs)
  local refused = refusal(old, rank, cas, added)
  if refused then return refused end
  local salt, signer, _, kind, _, _, _, _, size = record(FACTS, facts)
  local pos = call('HINCRBY', META, 'position', 1)
  local tree = grow(old, added, removed, tonumber(now))
  if old then
    if versions_max > 0 then remember(old, pos, removed, versions_max, bytes_max) end
    count_item(old, -1)
  end
  count_item({salt = salt, signer = signer, size = tonumber(size), tree = tree}, 1)
  call('HSET', P .. member, 'rank', rank, 'until', ends, 'pos', pos, 'ipos', pos, 'facts', facts,
    'item', item)
  if #after > 0 then
    call('HSET', P .. member, 'tree', tree, 'refs', table.concat(after))
  end
  if old then
    call('HDEL', P .. member, 'lease')
    if #after == 0 and old.tree > 0 then call('HDEL', P .. member, 'tree', 'refs') end
    if old.salt ~= salt then
      call('ZREM', LOG .. ':' .. old.salt, member)
      call('ZREM', TARGETS .. ':' .. old.salt, member)
    end
  else
    call('ZADD', TARGETS, 0, member)
  end
  if not old or old.salt ~= salt then call('ZADD', TARGETS .. ':' .. salt, 0, member) end
  call('ZADD', ENDS, tonumber(ends, 16), member)
  move(member, salt, pos)
  touch(member)
  return {STORED, kind == '1' and ZEROS or string.sub(rank, 1, 16), ''}
end

local outcomes = {}
for i = 1, items do outcomes[i] = put(ARGV[3 + i]) end
tell()
return {mark or 0, outcomes}
