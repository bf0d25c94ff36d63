"""Fixtures for pytest: write `pytest_plugins = ["httpx_reauth.testing.pytest"]` in the top `conftest.py`.

`manual_clock` is a clock that changes only when the test changes it. `authorization_server` is a server that uses this
clock. Each test gets new ones. The clock begins at the real time of day. So code that takes no clock also accepts the
server's tokens as valid. To change settings of the server, set them in the test, or override the fixture:

```python
import pytest

@pytest.fixture
def authorization_server(authorization_server):
    authorization_server.lifetime = 20
    authorization_server.clients = {"my-app": "secret"}
    return authorization_server
```

No other module of httpx_reauth imports pytest.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from httpx_reauth.testing import AuthorizationServer, ManualClock

__all__ = ["authorization_server", "manual_clock"]


@pytest.fixture
def manual_clock() -> ManualClock:
    """Return a `ManualClock` for `Reauth(..., clock=manual_clock)`, which `authorization_server` uses too."""
    return ManualClock(time=time.time())


@pytest.fixture
def authorization_server(manual_clock: ManualClock) -> Iterator[AuthorizationServer]:
    """Return an `AuthorizationServer` that uses `manual_clock`. It is closed at the end of the test."""
    with AuthorizationServer(clock=manual_clock) as server:
        yield server
