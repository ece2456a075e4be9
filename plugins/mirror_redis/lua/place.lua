-- Return {end of the log, mark of the latest change}.
return {position(), tonumber(call('HGET', META, 'mark')) or 0}
