"""What Redis does in one step for `RedisStorage`: scripts, each atomic."""

# KEYS: lock, token. ARGV: me, the lease in ms.
#
# The lease is mine if nobody has it, or I have it already: its answer was lost. Returns what is held, as a list of one,
# so that later writes can be compared with it; nil: somebody else has the lease.
TAKE = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
    return false
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
local held = redis.pcall('GET', KEYS[2])
return {type(held) == 'string' and held or ''}
"""

# KEYS: lock, token. ARGV: me, what was held when the lease was taken, what to hold, for how many seconds (0: for ever).
#
# Write if the lease is mine; if it is not, only over the very value that was held when it was. Writing the same again
# is no conflict: a client repeats a command whose answer was lost.
WRITE = """
local held = redis.call('GET', KEYS[2]) or ''
if held == ARGV[3] then
    return 1
end
if redis.call('GET', KEYS[1]) ~= ARGV[1] and held ~= ARGV[2] then
    return 0
end
if ARGV[4] == '0' then
    redis.call('SET', KEYS[2], ARGV[3])
else
    redis.call('SET', KEYS[2], ARGV[3], 'EX', ARGV[4])
end
return 1
"""

# KEYS: lock. ARGV: me.
GIVE_BACK = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
    return redis.call('DEL', KEYS[1])
end
return 0
"""
