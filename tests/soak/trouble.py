"""Orders faults of the server again and again. No fault costs a correct client its session."""

from __future__ import annotations

import random
import threading

from httpx_reauth.testing import AuthorizationServer, faults


class Trouble:
    """A thread that orders a fault of `server` about every `pause` seconds, until it is stopped."""

    def __init__(self, server: AuthorizationServer, pause: float, number: int) -> None:
        self.ordered = 0
        self._server = server
        self._pause = pause
        self._random = random.Random(number)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trouble")

    def __enter__(self) -> Trouble:  # noqa: PYI034 - no Self before Python 3.11
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for endpoint in (self._server.api, self._server.token_endpoint):
            endpoint.heal()
            endpoint.latency = 0.0

    def _run(self) -> None:
        server, chance = self._server, self._random
        kinds = (
            lambda: server.api.fail(*[faults.unavailable()] * chance.randint(1, 20)),
            lambda: server.api.fail(*[faults.dropped()] * chance.randint(1, 10)),
            lambda: server.api.fail(*[faults.cut_off()] * chance.randint(1, 5)),
            lambda: server.token_endpoint.fail(*[faults.unavailable()] * chance.randint(1, 4)),
            lambda: server.token_endpoint.fail(faults.too_many_requests(retry_after=0.2)),
            # the connection is dropped before the request takes effect
            lambda: server.token_endpoint.fail(faults.dropped()),
            lambda: server.token_endpoint.fail(faults.reply(200, "<html>")),
            server.revoke_access_tokens,
            server.expire_access_tokens,
            lambda: setattr(server.api, "latency", chance.choice([0.0, 0.0, 0.01, 0.1])),
            lambda: setattr(server.token_endpoint, "latency", chance.choice([0.0, 0.0, 0.05, 0.3])),
        )
        while not self._over.wait(self._pause * chance.uniform(0.5, 1.5)):
            chance.choice(kinds)()
            self.ordered += 1
