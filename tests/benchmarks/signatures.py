"""The time that one assertion takes: the claims, a new `jti`, the signature. Each attempt of a token request makes one.

The keys are in memory, as after the first use. A key in a file costs one more look at that file.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import process_time

from joserfc.jwk import ECKey, RSAKey

from httpx_reauth.oauth import SignedAssertion

from ._report import Row

FIGURE = "one signed assertion, made for each attempt of a token request"
SIGNATURES = 200


def run() -> list[Row]:
    keys = {"RS256, 2,048 bits": RSAKey.generate_key(2048), "ES256": ECKey.generate_key("P-256")}
    rows = []
    for case, key in keys.items():
        sign = SignedAssertion(key.as_pem(private=True), iss="reports", sub="reports", aud="https://id.example.com")
        for _ in range(SIGNATURES // 10):
            sign()
        times = [_seconds(sign) * 1e3 for _ in range(SIGNATURES)]
        rows.append(Row(FIGURE, case, median(times), "10.0", unit=" ms", note=f"CPU time; least {min(times):.2f} ms"))
    return rows


def _seconds(function: Callable[[], object]) -> float:
    start = process_time()
    function()
    return process_time() - start
