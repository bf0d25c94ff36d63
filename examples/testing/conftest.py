"""The common part of these examples. In your own project, put these lines into the top `conftest.py`."""

from __future__ import annotations

import pytest

pytest_plugins = ["httpx_reauth.testing.pytest"]  # the fixtures `authorization_server` and `manual_clock`


@pytest.fixture
def anyio_backend() -> str:
    """Return the backend of `@pytest.mark.anyio`, a mark of anyio."""
    return "asyncio"
