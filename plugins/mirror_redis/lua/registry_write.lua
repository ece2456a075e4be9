-- Do writes, each as a whole, in order; or none of them, where one does not fit.
-- ARGV: 3 channel, 4 now (ms), 5 now (ns), 6 day, 7 number of the day, 8 its span of five minutes,
-- 9 now (s), 10 to 13 how many entries of a subject, subjects, bytes, known callers at most,
-- 14 how many writes; then for each: subject, flags (w whole, p prolong, m must rise, b beat), until,
-- stamp or '', nonce or '', how many to put, how many to remove; keys and bodies; keys.
-- Returns {'full', what, how many} or, for each write, {error, next nonce, stamp, changed, removed,
-- listing or false}; a listing is {key, body, …}.
local channel, now, now_ns, day, span = ARGV[3], ARGV[4], ARGV[5], ARGV[6], tonumber(ARGV[8])
local entries_max, subjects_max = tonumber(ARGV[10]), tonumber(ARGV[11])
local bytes_max, callers_max = tonumber(ARGV[12]), tonumber(ARGV[13])
local states, order, nonces, beats = {}, {}, {}, {}
local subjects, bytes = call('HLEN', SIZES), number('bytes')

-- --- what a subject lists, read once; written at the end -----------------------------------------
local function load(subject)
  local s = states[subject]
  if s then return s end
  s = {bodies = {}, lives = {}, count = 0, size = 0, over = {}, put = {}, drop = {}, lived = {}}
  local bodies = pairs_of(call('HGETALL', T .. 'entries:' .. subject))
  local lives = call('HGETALL', T .. 'lives:' .. subject)
  for i = 1, #lives, 2 do
    local key, life = lives[i], lives[i + 1]
    if bodies[key] and string.sub(life, 1, 16) > now then
      s.bodies[key], s.lives[key], s.count = bodies[key], life, s.count + 1
      s.size = s.size + #key + #bodies[key]
    else
      s.over[#s.over + 1] = key
    end
  end
  s.was = tonumber(call('HGET', SIZES, subject) or '-1')
  states[subject], order[#order + 1] = s, subject
  return s
end
local function set(s, key, body, life)
  local old = s.bodies[key]
  if old ~= body then
    if old then s.size = s.size - #old else s.size, s.count = s.size + #key, s.count + 1 end
    s.size = s.size + #body
    s.bodies[key], s.put[key] = body, true
  end
  if s.lives[key] ~= life then s.lives[key], s.lived[key] = life, true end
  s.drop[key] = nil
end
local function drop(s, key)
  s.size, s.count = s.size - #key - #s.bodies[key], s.count - 1
  s.bodies[key], s.lives[key], s.put[key], s.lived[key] = nil, nil, nil, nil
  s.drop[key] = true
end
local function stamp_of(life) return string.sub(life, 17) end
local function later(a, b) return a > b and a or b end

-- --- the rules: skycore/discovery/registries.py has them in Python -------------------------------
local function put(s, w)
  local changed = false
  for key, body in pairs(w.put) do
    local life = s.lives[key]
    if not life then
      if w.ends > now then
        set(s, key, body, w.ends .. w.stamp)
        changed = true
      end
    else
      local ends = later(string.sub(life, 1, 16), w.ends)
      if stamp_of(life) > w.stamp then
        set(s, key, s.bodies[key], ends .. stamp_of(life))
      else
        changed = changed or s.bodies[key] ~= body
        set(s, key, body, ends .. w.stamp)
      end
    end
  end
  return changed
end
local function remove(s, keys, stamp)
  local removed = {}
  for _, key in ipairs(keys) do
    if s.lives[key] and stamp_of(s.lives[key]) <= stamp then
      drop(s, key)
      removed[#removed + 1] = key
    end
  end
  return removed
end
local function others(s, w)
  local keys = {}
  for key in pairs(s.lives) do
    if not w.put[key] then keys[#keys + 1] = key end
  end
  return keys
end
local function highest(s, w)
  local stamp = string.rep('0', 16)
  for key in pairs(w.put) do
    if s.lives[key] then stamp = later(stamp, stamp_of(s.lives[key])) end
  end
  for _, key in ipairs(w.remove) do
    if s.lives[key] then stamp = later(stamp, stamp_of(s.lives[key])) end
  end
  return stamp
end
local function apply(s, w)
  local changed = #s.over > 0
  for _, key in ipairs(s.over) do s.drop[key] = true end
  s.over = {}
  local removed = remove(s, w.remove, w.stamp)
  if put(s, w) or #removed > 0 then changed = true end
  if w.whole and #remove(s, others(s, w), w.stamp) > 0 then changed = true end
  if w.prolong then
    for key, life in pairs(s.lives) do
      if string.sub(life, 1, 16) < w.ends then
        set(s, key, s.bodies[key], w.ends .. stamp_of(life))
      end
    end
  end
  return changed, removed
end
local function full(s)
  if s.count > entries_max then return {'full', 'entries_max', s.count} end
  if subjects > subjects_max then return {'full', 'subjects_max', subjects_max} end
  if bytes > bytes_max then return {'full', 'table_mib_max', math.floor(bytes_max / 1048576)} end
end
local function listing(s)
  local flat = {}
  for key, body in pairs(s.bodies) do flat[#flat + 1], flat[#flat + 2] = key, body end
  return flat
end

-- Returns the result, or nil and why the batch does not fit.
local function write(w)
  local next_nonce = '0'
  if w.nonce ~= '' then
    next_nonce = nonces[w.subject] or text(nonce_of(w.subject))
    if w.nonce ~= next_nonce then return {'nonce', next_nonce, '0', 0, {}, false} end
  end
  local s = load(w.subject)
  if w.stamp == '' then
    w.stamp = now_ns
    for _, life in pairs(s.lives) do w.stamp = later(w.stamp, stamp_of(life)) end
  end
  if w.must_rise then
    local held = highest(s, w)
    if w.stamp <= held then return {'stamp', next_nonce, held, 0, {}, false} end
  end
  local changed, removed = apply(s, w)
  if changed then
    s.changed = true
    subjects = subjects + (s.count > 0 and 1 or 0) - (s.was >= 0 and 1 or 0)
    bytes = bytes + s.size - math.max(s.was, 0)
    if s.size > math.max(s.was, 0) then
      local reason = full(s)
      if reason then return nil, reason end
    end
    s.was = s.count > 0 and s.size or -1
  end
  if w.nonce ~= '' then
    next_nonce = text(tonumber(next_nonce) + 1)
    nonces[w.subject] = next_nonce
  end
  if w.beat then beats[w.subject] = true end
  return {'', next_nonce, '0', changed and 1 or 0, removed, changed and listing(s) or false}
end

-- --- reading what is asked for, and writing what became of it ------------------------------------
local function read(at)
  local flags = ARGV[at + 1]
  local w = {subject = ARGV[at], ends = ARGV[at + 2], stamp = ARGV[at + 3], nonce = ARGV[at + 4],
    whole = string.find(flags, 'w', 1, true), prolong = string.find(flags, 'p', 1, true),
    must_rise = string.find(flags, 'm', 1, true), beat = string.find(flags, 'b', 1, true),
    put = {}, remove = {}}
  local puts, removes = tonumber(ARGV[at + 5]), tonumber(ARGV[at + 6])
  at = at + 7
  for i = at, at + 2 * puts - 1, 2 do w.put[ARGV[i]] = ARGV[i + 1] end
  at = at + 2 * puts
  for i = at, at + removes - 1 do w.remove[#w.remove + 1] = ARGV[i] end
  return w, at + removes
end
local function flush(subject, s)
  local bodies, lives, gone, ends = {}, {}, {}, nil
  for key in pairs(s.put) do bodies[#bodies + 1], bodies[#bodies + 2] = key, s.bodies[key] end
  for key in pairs(s.lived) do lives[#lives + 1], lives[#lives + 2] = key, s.lives[key] end
  for key in pairs(s.drop) do gone[#gone + 1] = key end
  for _, life in pairs(s.lives) do
    local this = string.sub(life, 1, 16)
    if not ends or this < ends then ends = this end
  end
  call_many('HDEL', T .. 'entries:' .. subject, gone)
  call_many('HDEL', T .. 'lives:' .. subject, gone)
  call_many('HSET', T .. 'entries:' .. subject, bodies)
  call_many('HSET', T .. 'lives:' .. subject, lives)
  if s.changed or #lives > 0 then place(subject, s.size, ends, now, s.changed) end
end
local function beat(subject)
  local key = T .. 'uptime:' .. day
  local held = call('HGET', key, subject)
  if not held then
    local callers = call('HLEN', key)
    if callers >= callers_max then return end
    if callers == 0 then call('ZADD', T .. 'uptime', ARGV[7], day) end
    held = string.rep('\0', 36) .. '0'
  end
  local at = math.floor(span / 8) + 1
  local bit_value = 2 ^ (7 - span % 8)
  local byte = string.byte(held, at)
  if math.floor(byte / bit_value) % 2 == 0 then byte = byte + bit_value end
  local last = math.max(tonumber(string.sub(held, 37)) or 0, tonumber(ARGV[9]))
  call('HSET', key, subject,
    string.sub(held, 1, at - 1) .. string.char(byte) .. string.sub(held, at + 1, 36) .. text(last))
end

local at, results, w, reason = 15, {}, nil, nil
for i = 1, tonumber(ARGV[14]) do
  w, at = read(at)
  results[i], reason = write(w)
  if reason then return reason end
end
local any_changed = false
for _, subject in ipairs(order) do
  flush(subject, states[subject])
  any_changed = any_changed or states[subject].changed
end
for subject, next_nonce in pairs(nonces) do
  call('SET', T .. 'nonces:' .. subject, next_nonce)
  call('ZADD', T .. 'nonces:used', ARGV[9], subject)
end
for subject in pairs(beats) do beat(subject) end
if any_changed then tell(channel) end
return results
