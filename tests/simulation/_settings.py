"""The settings of a world, which are drawn from its seed."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Literal, NamedTuple


class Clients(NamedTuple):
    """Some clients that live in one thread, or for `"sync"` in one each.

    Attributes:
        kind: what runs them.
        tasks: how many there are.
        requests: how many things each of them does.
    """

    kind: Literal["sync", "asyncio", "trio"]
    tasks: int
    requests: int


@dataclass
class Settings:
    """What is drawn from the seed before anything happens."""

    processes: list[list[Clients]]
    refresh: str  # the mode of the refresh function
    storage: Literal["", "lock", "lease"]  # none; one whose lock dies with its holder; or `RedisStorage`
    pool: bool  # each process gets its auth object from a `ReauthPool`
    shared_store: bool  # two `Reauth` objects on one store
    lifetime: float
    says: str  # which times a token answer has
    rotation: str
    refresh_timeout: float
    leeway: float
    token_latency: float
    api_latency: float
    faults: float  # the share of token requests that fail
    hangs: float  # times `refresh_timeout`: how long a token request hangs at most
    storage_faults: float
    drops: float  # the share of API requests whose connection breaks
    cancels: float  # the share of async requests that are cancelled
    logs_in: bool  # whether the refresh function can log in
    first: str  # the first token: none, a whole one, or only a refresh token
    disturbances: int
    span: float  # seconds within which the disturbances happen
    kinds: tuple[str, ...]  # the kinds of disturbances
    restlessness: float
    stalls: float
    shuffled: bool
    early_ends: float  # the share of event loops that end before their tasks
    closes: float  # the share of event loops that end with `aclose`
    no_threads: float


DISTURBANCES = (
    "revoke", "revoke", "kill family", "jump", "jump", "sleep", "sign in", "sign in", "sign out", "refuse all", "crash",
)  # fmt: skip
OF_STORAGES = ("storage away",)
OF_REDIS = ("sleep with the lease", "sleep with the lease", "sleep with the lease", "lose data")


def draw(random: Random) -> Settings:
    """A world; about half of them are simple, and the others small: many small ones find what a few large ones do."""
    chance, choice = random.random, random.choice
    is_simple = chance() < 0.5
    storage: Literal["", "lock", "lease"] = ""
    if chance() < (0.1 if is_simple else 0.6):
        storage = choice(("lock", "lock", "lease"))
    pool = storage != "" and chance() < 0.3
    number = 1 if is_simple or not storage else choice((1, 2, 2, 3))
    if storage == "lease":
        number = choice((2, 2, 3))
    is_faulty = chance() < 0.5
    kinds = DISTURBANCES + (OF_STORAGES if storage else ()) + (OF_REDIS if storage == "lease" else ())
    lifetime = choice((2.0, 20.0, 20.0, 20.0) if storage == "lease" else (2.0, 20.0, 20.0, 300.0, 3600.0))
    return Settings(
        processes=[_clients(random, is_simple=is_simple, is_long=storage == "lease") for _ in range(number)],
        refresh=choice(("sync", "async", "async", "lazy")),
        storage=storage,
        pool=pool,
        shared_store=not (is_simple or pool) and chance() < 0.2,
        lifetime=lifetime,
        says=choice(("expires_in", "expires_in", "expires_in", "expires_at", "both", "neither")),
        rotation=choice(("rotate", "rotate", "rotate", "rotate", "static", "none")),
        refresh_timeout=choice((2.0, 2.0, 5.0, 30.0) if storage == "lease" else (2.0, 5.0, 30.0, 30.0)),
        leeway=choice((60.0, 60.0, 0.0)),
        token_latency=choice((0.0, 0.1, 1.0, 1.0, 4.0)),
        api_latency=choice((0.0, 0.1, 1.0)),
        faults=choice((0.1, 0.3, 0.7)) if is_faulty else 0.0,
        storage_faults=choice((0.0, 0.05, 0.2)) if is_faulty else 0.0,
        drops=choice((0.0, 0.1)) if is_faulty else 0.0,
        cancels=choice((0.0, 0.2, 0.5)),
        logs_in=chance() < 0.2,
        first=choice(("none", "whole", "whole", "refresh token")),
        disturbances=choice((0, 1, 3)) if is_simple else choice((0, 2, 5, 8)),
        span=choice((0.5, 3.0, 30.0, lifetime)),
        kinds=kinds if chance() < 0.7 else tuple(random.sample(kinds, 2)),
        restlessness=choice((0.02, 0.1, 0.4)),
        stalls=choice((0.0, 0.0, 0.0, 0.01)),
        hangs=choice((3.0, 3.0, 20.0)) if storage == "lease" else 3.0,
        shuffled=chance() < 0.3,
        early_ends=choice((0.0, 0.0, 0.2)),
        closes=choice((0.0, 0.5, 1.0)),
        no_threads=choice((0.0,) * 9 + (0.2,)),
    )


def _clients(random: Random, *, is_simple: bool, is_long: bool) -> list[Clients]:
    kinds = ("sync", "asyncio", "asyncio", "asyncio", "trio") if random.random() < 0.5 else ("sync", "asyncio")
    groups = random.choice((1, 1, 2) if is_simple else (1, 2))
    tasks = (1, 2, 3) if is_simple else (2, 3, 4)
    requests = (1, 2, 4, 8) if is_long else (1, 1, 1, 1, 2, 4)
    return [Clients(random.choice(kinds), random.choice(tasks), random.choice(requests)) for _ in range(groups)]
