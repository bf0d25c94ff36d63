"""Fixtures for pytest, for those who ask: `pytest_plugins = ["httpx_reauth.testing.pytest"]` in the top `conftest.py`.

`manual_clock` is a clock that stands still until the test moves it; `authorization_server` is a server whose tokens
expire by that clock. Both are made anew for each test. The clock begins at the real time of day, so that code which
cannot be given a clock, too, takes the server's tokens for good ones. To set more about the server, set it in the test,
or override the fixture:

```python
import pytest

@pytest.fixture
def authorization_server(authorization_server):
    authorization_server.lifetime = 20
    authorization_server.clients = {"my-app": "secret"}
    return authorization_server
```

Nothing else of httpx_reauth imports pytest.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from httpx_reauth.testing import AuthorizationServer, ManualClock

__all__ = ["authorization_server", "manual_clock"]


@pytest.fixture
def manual_clock() -> ManualClock:
    """A `ManualClock`, for `Reauth(..., clock=manual_clock)`. The test's `authorization_server` counts by it, too."""
    return ManualClock(time=time.time())


@pytest.fixture
def authorization_server(manual_clock: ManualClock) -> Iterator[AuthorizationServer]:
    """An `AuthorizationServer` whose tokens expire by `manual_clock`; closed at the end of the test."""
    with AuthorizationServer(clock=manual_clock) as server:
        yield server
