"""What Redis does in one step for `RedisStorage`: scripts, each atomic.

Who waits for the lease blocks on the list `wake`. Somebody pushes as many elements as are to go on: that is the ring.
"""

# KEYS: lock, token, waiting. ARGV: me, the lease in ms, whether I am counted already among those that wait.
#
# The lease is mine if nobody has it, or I have it already: a command that was repeated after a lost answer. Whether it
# is mine or not, the answer brings the token along. A count that is too high, since somebody found the token at once
# or has died, costs a needless look at another time; one that is too low, a second.
TAKE = """
local holder = redis.call('GET', KEYS[1])
local is_mine, remaining = 1, 0
if holder and holder ~= ARGV[1] then
    is_mine, remaining = 0, redis.call('PTTL', KEYS[1])
    if ARGV[3] == '0' then
        redis.call('INCR', KEYS[3])
        redis.call('PEXPIRE', KEYS[3], ARGV[2])
    end
else
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
local held = redis.pcall('GET', KEYS[2])
return {is_mine, remaining, type(held) == 'string' and held}
"""

_RING_TIME = "10000"  # milliseconds that a ring is kept for one that was just about to listen

# KEYS: lock, token, waiting, wake. ARGV: me, what was loaded under the lease, what to save.
#
# Save if the lease is mine; if it is not, only over the very value that was loaded under it. Then ring for all that
# wait: to read the token they need no lease.
SAVE = f"""
local held = redis.call('GET', KEYS[2]) or ''
if held == ARGV[3] then
    return 1
end
if redis.call('GET', KEYS[1]) ~= ARGV[1] and held ~= ARGV[2] then
    return 0
end
redis.call('SET', KEYS[2], ARGV[3])
local waiting = tonumber(redis.call('GET', KEYS[3]) or 0)
if waiting > 0 then
    redis.call('DEL', KEYS[3])
    for _ = 1, waiting do
        redis.call('RPUSH', KEYS[4], '1')
    end
    redis.call('PEXPIRE', KEYS[4], {_RING_TIME})
end
return 1
"""

# KEYS: lock, waiting, wake. ARGV: me.
#
# Give back what is mine, and ring for one of those that wait, unless there is a ring that nobody has heard yet.
GIVE_BACK = f"""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return 0
end
redis.call('DEL', KEYS[1])
if tonumber(redis.call('GET', KEYS[2]) or 0) > 0 and redis.call('LLEN', KEYS[3]) == 0 then
    redis.call('DECR', KEYS[2])
    redis.call('RPUSH', KEYS[3], '1')
    redis.call('PEXPIRE', KEYS[3], {_RING_TIME})
end
return 1
"""
