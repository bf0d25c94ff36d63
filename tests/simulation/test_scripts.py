"""The scripts of `RedisStorage`, as the simulation tells them once more in Python, do what they do in a real server."""

from __future__ import annotations

import random

from redis_server import RedisServer

from httpx_reauth.storage.redis_scripts import GIVE_BACK, TAKE, WRITE

from ._redis import DELETE, Data

KEYS = ("{key}:lock", "key")


def test_simulated_scripts_do_what_the_real_ones_do(redis_server: RedisServer):
    chance, data, now = random.Random(0), Data(), 0.0
    with redis_server.client(decode_responses=True) as client:
        for _ in range(2_000):
            caller, expected, value = chance.choice("ab"), chance.choice(["", "1", "2"]), chance.choice("12")
            match chance.choice(["take", "write", "write", "give back", "delete", "expire", "lose"]):
                case "take":
                    assert client.eval(TAKE, 2, *KEYS, caller, 3_600_000) == data.take(now, caller, 3_600_000)
                case "write":
                    real = client.eval(WRITE, 2, *KEYS, caller, expected, value, 0)
                    assert real == data.write(now, caller, expected, value)
                case "give back":
                    assert client.eval(GIVE_BACK, 1, KEYS[0], caller) == data.give_back(now, caller)
                case "delete":
                    assert client.eval(DELETE, 1, KEYS[0], caller) == data.delete(now)
                case "expire":
                    client.pexpire(KEYS[0], 0)
                    now += 3_600
                case "lose":
                    client.delete(KEYS[1])
                    data.value = ""
            assert (client.get(KEYS[0]), client.get(KEYS[1]) or "") == (data.holder(now), data.value)
