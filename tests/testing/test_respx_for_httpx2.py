"""Tests of respx with httpx2, by the fixture of pytest-httpx2. A fault raises an error of httpx2."""

from __future__ import annotations

import httpx2
import pytest
from server_ways import HOST, bearer

from httpx_reauth.testing import faults


@pytest.fixture
def mocked(server, httpx2_mock):
    server.mock(httpx2_mock, base_url=HOST, package=httpx2)
    return server


async def get(mode: str, **options):
    if mode == "sync":
        with httpx2.Client(base_url=HOST) as client:
            return client.get("/me", **options)
    async with httpx2.AsyncClient(base_url=HOST) as client:
        return await client.get("/me", **options)


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_an_answer_is_that_packages_response(mocked, mode):
    answer = await get(mode, headers=bearer(mocked.issue()))
    assert isinstance(answer, httpx2.Response)
    assert (answer.status_code, answer.json()["path"]) == (200, "/me")


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (faults.dropped(), "RemoteProtocolError"),
        (faults.refused_connection(), "ConnectError"),
        (faults.cut_off(), "RemoteProtocolError"),
        (faults.hanging(), "ReadTimeout"),
    ],
    ids=["dropped", "refused", "cut off", "hanging"],
)
async def test_a_fault_is_that_packages_error(mocked, mode, fault, error):
    mocked.api.fail(fault)
    with pytest.raises(getattr(httpx2, error)):
        await get(mode, timeout=0.05 if fault.hangs else None)
