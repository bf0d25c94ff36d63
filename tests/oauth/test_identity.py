"""Tests of workload identity: a file that the platform writes, and GitHub's answer to a job."""

from __future__ import annotations

import traceback
from collections.abc import Iterator

import pytest

from httpx_reauth import InsecureOrigin, RefreshError
from httpx_reauth.identity import FileIdentity, GitHubActions
from httpx_reauth.testing import Answer, AuthorizationServer, Received, faults

SECRET = "the-runner's-own-secret"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "token"
    path.write_text("first.token\n")
    return path


def test_a_file_is_read_at_each_use(file):
    identity = FileIdentity(file)
    assert identity() == "first.token"
    file.write_text("  second.token")
    assert identity() == "second.token"


def test_a_variable_names_the_file_and_is_read_at_each_use_too(file, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.write_text("other.token")
    identity = FileIdentity(str(other), env="IDENTITY_FILE")
    assert identity() == "other.token"
    monkeypatch.setenv("IDENTITY_FILE", str(file))
    assert identity() == "first.token"
    assert FileIdentity(env="IDENTITY_FILE")() == "first.token"


@pytest.mark.parametrize("content", [b"", b" \n", b"two words", b"line\nline", b"\xff\xfe", b"x" * (1024 * 1024 + 1)])
def test_a_file_that_holds_no_token_is_said_by_its_name_and_without_what_is_in_it(file, content):
    file.write_bytes(content)
    with pytest.raises(RefreshError) as caught:
        FileIdentity(file)()
    assert str(file) in str(caught.value)
    assert "words" not in str(caught.value)


def test_a_file_that_is_not_there_is_said_by_its_name(tmp_path):
    with pytest.raises(RefreshError, match="FileNotFoundError") as caught:
        FileIdentity(tmp_path / "none")()
    assert str(tmp_path / "none") in str(caught.value)
    with pytest.raises(RefreshError) as caught:
        FileIdentity(tmp_path / "schl\xfcssel")()
    assert str(caught.value).isascii()


def test_a_variable_that_is_not_set_is_said(monkeypatch):
    monkeypatch.delenv("IDENTITY_FILE", raising=False)
    with pytest.raises(RefreshError, match="IDENTITY_FILE"):
        FileIdentity(env="IDENTITY_FILE")()
    with pytest.raises(TypeError, match="FileIdentity"):
        FileIdentity()


@pytest.fixture
def github(monkeypatch) -> Iterator[AuthorizationServer]:
    """GitHub as a job sees it."""

    def answer(request: Received) -> Answer | dict[str, str]:
        if request.bearer_token != SECRET:
            return Answer(401)
        return {"value": f"token-for-{request.params['audience']}-{request.params['api-version']}"}

    with AuthorizationServer(access="open", resource=answer) as server, server.serve() as url:
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", f"{url}/idtoken?api-version=2.0")
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", SECRET)
        yield server


def test_github_gives_a_new_token_for_the_audience_at_each_use(github):
    identity = GitHubActions("https://id.example.com/a b")
    assert identity() == identity() == "token-for-https://id.example.com/a b-2.0"
    assert len(github.requests_to("/idtoken")) == 2


def test_outside_of_a_job_the_missing_permission_is_said(monkeypatch):
    monkeypatch.delenv("ACTIONS_ID_TOKEN_REQUEST_URL", raising=False)
    with pytest.raises(RefreshError, match="id-token: write"):
        GitHubActions("a")()


@pytest.mark.parametrize(
    "fault",
    [
        faults.unavailable(),
        faults.html(),
        faults.reply(200, {"value": 1}),
        faults.reply(403, {"message": f"no {SECRET} for you"}),
        faults.redirect("https://evil.example"),
        faults.dropped(),
        faults.endless(),
    ],
)
def test_where_github_gives_no_token_the_error_says_so_and_no_secret_even_in_its_frames(github, fault):
    github.api.fail(fault)
    with pytest.raises(RefreshError) as caught:
        GitHubActions("a")()
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    ours = shown.replace(f"SECRET = {SECRET!r}", "")
    assert SECRET not in ours
    assert GitHubActions("a")() == "token-for-a-2.0"


def test_the_jobs_secret_goes_to_no_plain_http(monkeypatch):
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", "http://github.example/idtoken")
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", SECRET)
    with pytest.raises(InsecureOrigin):
        GitHubActions("a")()
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", "idtoken")
    with pytest.raises(RefreshError, match="URL"):
        GitHubActions("a")()


def test_an_audience_is_a_word():
    with pytest.raises(ValueError, match="audience"):
        GitHubActions("")
    with pytest.raises(TypeError, match="audience"):
        GitHubActions(None)  # type: ignore[arg-type]


def test_each_shows_where_it_looks(tmp_path):
    assert repr(FileIdentity(tmp_path, env="A")) == f"FileIdentity({str(tmp_path)!r}, env='A')"
    assert repr(GitHubActions("a")) == "GitHubActions('a')"
