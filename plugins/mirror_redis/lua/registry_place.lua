-- Return the end of the change log.
return {number('position'), number('position')}
