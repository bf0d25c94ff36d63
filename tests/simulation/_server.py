"""The simulated servers and their faults: a token endpoint that rotates and notices reuse, an API, another server."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TYPE_CHECKING

import httpx

from httpx_reauth import Token
from httpx_reauth._tokens._refresh.renewal import _HEAD_START

from ._kernel import Home, Kernel
from ._values import Access, Ask, Dropped, Family, Refresh, json_response

if TYPE_CHECKING:
    from ._settings import Settings

BEFORE = ("503", "429", "429 with a date", "invalid_client", "502 with a page", "dropped before", "hangs before")
AFTER = ("garbage after", "dropped after", "hangs after", "late")
FINAL = ("invalid_grant",)


@dataclass
class Server:
    """The token endpoint and the API."""

    kernel: Kernel
    settings: Settings
    access: dict[str, Access] = field(default_factory=dict)
    refresh: dict[str, Refresh] = field(default_factory=dict)
    asking: list[Ask] = field(default_factory=list)
    families: int = 0
    numbers: int = 0
    token_requests: int = 0
    api_requests: int = 0
    refusing: bool = False  # the API refuses everything
    is_calm: bool = False
    troubles: int = 0  # faults, and other reasons for an error
    sign_outs: int = 0
    refusals: int = 0  # reasons for a 401

    def sign_in(self, *, with_access: bool = True) -> Token:
        """Somebody signs in by hand."""
        self.families += 1
        family = Family(self.families)
        refresh_token = self._refresh_token(family) if self.settings.rotation != "none" else None
        if refresh_token is not None:
            self.refresh[refresh_token].is_signed_in = True
        if not with_access and refresh_token is not None:
            return Token(refresh_token=refresh_token)
        return Token(self._access_token(family, self.kernel.now), refresh_token=refresh_token, **self._times())

    def exchange(self, ask: Ask, token: Token) -> Generator[float, None, httpx.Response]:  # noqa: C901, PLR0912
        """One token request: yields seconds to pass, returns the answer or raises."""
        kernel = self.kernel
        self.token_requests += 1
        for other in self.asking:
            overtaken = not self.settings.storage and (other.counts_no_more or ask.worker.superseded)
            if other.key != ask.key or other.home.is_dead or overtaken or ask.is_given_up:
                continue
            if other.is_stoppable and other.home.machine.monotonic() >= other.overdue - 1e-6:
                other.is_given_up = True
                self._excuse(other, "it was given up, as its loop stood still")
            elif other.is_left_behind:
                self._excuse(other, "its loop was closed under it")
            elif not (other.lost_its_lease or ask.lost_its_lease):
                kernel.fail(f"two refreshes under way for one token: {ask.key}")
        self.asking.append(ask)
        fault = self._fault()
        before, after = self._latency(), self._latency()
        if before + after > self.settings.refresh_timeout / 10:
            self.troubles += 1  # a caller may run into its timeout
        kernel.note("token request", token.refresh_token, fault or "")
        try:
            yield before
            if fault == "hangs before":
                yield self.settings.refresh_timeout * self.settings.hangs * kernel.random.random()
            if fault in BEFORE:
                return self._failed(fault)
            answer = self._process(ask, token, fault)
            if fault in {"late", "hangs after"}:
                yield self.settings.refresh_timeout * (self.settings.hangs - 1) * kernel.random.random()
            else:
                yield after
            if fault in {"dropped after", "hangs after"}:
                self._excuse(ask, "its answer was lost")
                raise Dropped(fault)
            if fault == "garbage after":
                self._excuse(ask, "its answer was garbled")
                return httpx.Response(200, text="<p>It works!</p>")
            ask.is_late = ask.is_stoppable and ask.home.machine.monotonic() >= ask.overdue - 1e-6
            if ask.is_late and ask.worker.finished.is_set:
                self._excuse(ask, "it had been given up, as its loop stood still")
            ask.is_answered = True
            return answer
        finally:
            self.asking.remove(ask)
            kernel.note("token request over", token.refresh_token, "answered" if ask.is_answered else "")

    def _process(self, ask: Ask, token: Token, fault: str) -> httpx.Response:  # noqa: C901, PLR0911 - a table
        if fault == "invalid_grant" and token.refresh_token in self.refresh:
            family = self.refresh[token.refresh_token].family
            family.died = family.died or "the server's whim"
        if self.settings.rotation == "none":
            return self._answer(None, Family(0), ask.begun)
        if token.refresh_token is None:  # the refresh logs in
            self.families += 1
            family = Family(self.families)
            return self._answer(self._refresh_token(family), family, ask.begun)
        known = self.refresh.get(token.refresh_token)
        if known is None:
            self.kernel.fail(f"a refresh token that was never issued: {token.refresh_token}")
            return httpx.Response(400, json={"error": "invalid_grant"})
        if known.family.died:
            self.troubles += 1
            return httpx.Response(400, json={"error": "invalid_grant"})
        if known.successor:
            if known.spent_by is not None and known.spent_by.came_too_late:
                self._excuse(known.spent_by, "it had been given up, as its loop stood still")
            # Or this one was given up while its loop stood still: another has spent the token, and now the loop goes on
            # and sends what nobody waits for any more.
            lost_its_lease = ask.lost_its_lease or (known.spent_by is not None and known.spent_by.lost_its_lease)
            if not (known.excuse or ask.is_given_up or lost_its_lease):
                self.kernel.fail(f"the refresh token {token.refresh_token} was used twice, and a rotated one is lost")
            known.family.died = f"reuse after {known.excuse or 'one that was given up, or that lost its lease'}"
            self.troubles += 1
            return httpx.Response(400, json={"error": "invalid_grant"})
        if self.settings.rotation == "static":
            return self._answer(None, known.family, ask.begun)
        known.successor = self._refresh_token(known.family)
        ask.spent, known.spent_by = token.refresh_token, ask
        if ask.is_given_up:
            self._excuse(ask, "it had been given up, as its loop stood still")
        return self._answer(known.successor, known.family, ask.begun)

    def _answer(self, refresh_token: str | None, family: Family, begun: float) -> httpx.Response:
        body = {"access_token": self._access_token(family, begun), "token_type": "bearer", **self._times()}
        if refresh_token is not None:
            body["refresh_token"] = refresh_token
        return json_response(body)

    def _times(self) -> dict[str, float]:
        times: dict[str, float] = {}
        if self.settings.says in ("expires_in", "both"):
            times["expires_in"] = self.settings.lifetime
        if self.settings.says in ("expires_at", "both"):
            times["expires_at"] = 1_700_000_000.0 + self.kernel.now + self.settings.lifetime
        return times

    def _access_token(self, family: Family, begun: float) -> str:
        self.numbers += 1
        name = f"access-{self.numbers}"
        self.access[name] = Access(family, begun, self.kernel.now + self.settings.lifetime)
        return name

    def _refresh_token(self, family: Family) -> str:
        self.numbers += 1
        name = f"refresh-{self.numbers}"
        self.refresh[name] = Refresh(family)
        return name

    def _excuse(self, ask: Ask, why: str) -> None:
        if ask.spent:
            self.refresh[ask.spent].excuse = why

    def stopped(self, ask: Ask, *, loop_is_ending: bool) -> None:
        """A token request was broken off by whoever sent it."""
        if ask.is_answered or self.kernel.is_over:
            return
        is_late = ask.home.machine.monotonic() >= ask.overdue - _HEAD_START - 1e-6
        if not (ask.home.is_dead or is_late or loop_is_ending):
            self.kernel.fail(f"the refresh of {ask.key} was stopped although its time was not up and its loop runs")
        self.troubles += 1
        self._excuse(ask, "it was stopped")

    def crashed(self, home: Home) -> None:
        """The requests of a process that has died: the server may still get them, or not."""
        for ask in [one for one in self.asking if one.home is home]:
            self.asking.remove(ask)
            known = self.refresh.get(str(ask.key))
            arrives = not ask.spent and self.kernel.random.random() < 0.5
            if known is not None and self.settings.rotation == "rotate" and arrives and not known.successor:
                known.successor, ask.spent = self._refresh_token(known.family), str(ask.key)
            self._excuse(ask, "its process died")

    def serve(self, request: httpx.Request, carried: str) -> int:
        """The API's status for `request`, which carried that when it left."""
        self.api_requests += 1
        if request.url.raw_host != b"api.test":
            if carried:
                self.kernel.fail("a token went to a foreign origin")
            return 401
        kind, _, name = carried.partition(" ")
        known = self.access.get(name)
        if kind != "Bearer" or known is None:
            self.kernel.fail(f"a request was sent without a token: {carried!r}")
            return 401
        why = (
            "expired" if self.kernel.now >= known.ends
            else "revoked" if known.revoked
            else f"family: {known.family.died}" if known.family.died
            else "everything is refused" if self.refusing
            else ""
        )  # fmt: skip
        self.kernel.note("api", name, why or "200")
        if why:
            self.refusals += 1
            known.refused = why
            return 401
        return 200

    def _fault(self) -> str:
        random, settings = self.kernel.random.random, self.settings
        if self.is_calm or random() >= settings.faults:
            return ""
        kinds = BEFORE * 2 + AFTER + (FINAL if random() < 0.3 else ())
        self.troubles += 1
        return kinds[int(random() * len(kinds))]

    def _failed(self, fault: str) -> httpx.Response:
        asked = str(round(self.kernel.random.random() * 20))
        if fault == "503":
            return httpx.Response(503)
        if fault == "429":
            return httpx.Response(429, headers={"Retry-After": asked})
        if fault == "429 with a date":
            at = 1_700_000_000.0 + self.kernel.now + float(asked)
            return httpx.Response(429, headers={"Retry-After": formatdate(at, usegmt=True)})
        if fault == "invalid_client":
            return httpx.Response(401, json={"error": "invalid_client"})
        if fault == "502 with a page":
            return httpx.Response(502, text="<h1>Bad gateway</h1>")
        raise Dropped(fault)

    def _latency(self) -> float:
        random = self.kernel.random.random
        return 0.0 if self.is_calm or random() < 0.3 else random() * self.settings.token_latency
