-- Return who was seen on a day, as Redis holds it. ARGV[3]: the day.
return call('HGETALL', T .. 'uptime:' .. ARGV[3])
