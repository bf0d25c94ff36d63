"""Tests of the test kit's pytest plugin and of the recipes. They run in a pytest process, as in a user's project."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import entry_points

import pytest
from examples_by_name import ROOT

pytest_plugins = ["pytester"]

# Hypothesis's plugin would import all of Hypothesis for its summary. The cache would be written beside the recipes.
OPTIONS = ["-p", "no:hypothesispytest", "-p", "no:cacheprovider"]

PLUGIN = ROOT / "httpx_reauth" / "testing" / "pytest.py"

FIXTURES = """
    import pytest
    from httpx_reauth.testing import AuthorizationServer, ManualClock

    seen = []

    def test_the_server_counts_by_the_clock(authorization_server, manual_clock):
        token = authorization_server.issue(lifetime=10)
        headers = [("Authorization", f"Bearer {token.access_token}")]
        assert authorization_server.respond("GET", "/me", headers).status == 200
        manual_clock.advance(10)
        assert authorization_server.respond("GET", "/me", headers).status == 401
        seen.append((authorization_server, manual_clock))

    def test_clock_and_server_are_new_for_each_test(authorization_server, manual_clock):
        [(server, clock)] = seen
        assert type(authorization_server) is AuthorizationServer and authorization_server is not server
        assert type(manual_clock) is ManualClock and manual_clock is not clock
        assert authorization_server.api_requests == 0
        gate = authorization_server.api.hold()
        authorization_server.respond("GET", "/me")
        seen.append(gate)

    def test_the_server_was_closed_at_the_end_of_the_test():
        assert seen[-1].is_released
"""

WITHOUT_THE_CLOCK = """
    import httpx
    from httpx_reauth import Reauth

    def test_its_tokens_are_good_to_code_that_cannot_be_given_the_clock(authorization_server):
        def refresh(token):
            raise AssertionError("there was no need")

        transport = authorization_server.transport(httpx)
        auth = Reauth(refresh, token=authorization_server.issue())
        with httpx.Client(transport=transport, base_url="https://api.test", auth=auth) as client:
            assert client.get("/me").status_code == 200
"""

OVERRIDDEN = "def test_an_overridden_fixture_is_used(authorization_server): assert authorization_server.lifetime == 20"


def test_the_fixtures_exist_with_the_plugin_and_can_be_overridden(pytester: pytest.Pytester):
    [override] = re.findall(r"```python\n(.*?)```", PLUGIN.read_text(encoding="utf-8"), re.DOTALL)
    pytester.makeconftest('pytest_plugins = ["httpx_reauth.testing.pytest"]')
    pytester.makepyfile(test_fixtures=FIXTURES, test_without_the_clock=WITHOUT_THE_CLOCK)
    pytester.makepyfile(test_overridden=f"{override}\n{OVERRIDDEN}")
    pytester.runpytest_inprocess(*OPTIONS).assert_outcomes(passed=5)


def test_without_the_plugin_there_are_no_fixtures():
    plugins = [point.value for point in entry_points(group="pytest11")]
    assert "respx.plugin" in plugins
    assert not [name for name in plugins if name.startswith("httpx_reauth")]


def test_without_the_plugin_the_test_kit_does_not_import_pytest():
    code = "import httpx_reauth.testing, sys; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


@pytest.mark.parametrize("name", ["respx", "pytest_httpx", "httpx2", "asgi"])
def test_every_recipe_is_a_test_that_can_fail(name: str):
    text = (ROOT / "examples" / "testing" / f"test_with_{name}.py").read_text(encoding="utf-8")
    for recipe in re.split(r"\n(?:async )?def test_", text)[1:]:
        assert "assert " in recipe or "pytest.raises" in recipe


def test_the_recipes_pass_unchanged():
    command = [sys.executable, "-m", "pytest", *OPTIONS, "-n", "0", "-q", "examples/testing"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=100, check=False, text=True)
    assert done.returncode == 0, done.stdout
    assert re.search(r"^13 passed in ", done.stdout, flags=re.MULTILINE), done.stdout
