"""The Lua scripts of `RedisStorage`; Redis runs each script as one atomic step."""

# Takes the lease. KEYS: lock, token. ARGV: the caller, the lease in ms.
#
# The caller gets the lease if nobody holds it, or if the caller already holds it. (The reply to its first call may have
# been lost.) The result is a list with the stored value; later writes compare it with the value then. The result is nil
# if another caller holds the lease.
TAKE = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
    return false
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
local held = redis.pcall('GET', KEYS[2])
return {type(held) == 'string' and held or ''}
"""

# Writes the value. KEYS: lock, token. ARGV: the caller, the stored value when the lease was taken, the new value, the
# seconds until it expires (0: never).
#
# A caller that holds the lease writes. A caller that has lost the lease writes only if the stored value has not changed
# since it took the lease. If the new value is already stored, that is not a conflict: a client repeats a command if the
# reply was lost.
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

# Releases the lease, if the caller holds it. KEYS: lock. ARGV: the caller.
GIVE_BACK = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
    return redis.call('DEL', KEYS[1])
end
return 0
"""
