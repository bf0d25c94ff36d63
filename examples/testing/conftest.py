"""What the recipes share. In your own project, these lines stand in the top `conftest.py`."""

from __future__ import annotations

import pytest

pytest_plugins = ["httpx_reauth.testing.pytest"]  # the fixtures `authorization_server` and `manual_clock`


@pytest.fixture
def anyio_backend() -> str:
    """What `@pytest.mark.anyio` runs on; anyio brings that mark."""
    return "asyncio"
