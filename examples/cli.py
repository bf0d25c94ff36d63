"""A command line that signs people in: `login` with the browser or with a code, `whoami`, `logout`.

The token is kept in a file that no other user can read, or in the desktop's secret store. `whoami` uses this token and
renews it when necessary. If several commands run at the same time, only one of them renews it. `logout` removes the
token and revokes it at the server. If a person is not signed in, the program says how to sign in.

Run it: `python examples/cli.py`, after `pip install 'httpx-reauth[file]' rich`. This runs every command with a server
on loopback, as `--demo` does. With your server: `... cli.py --issuer https://id.example.com --api
https://api.example.com --client-id my-cli login`. `--storage keyring` needs `httpx-reauth[keyring]`.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import webbrowser
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from httpx_reauth import Reauth, ReauthError, RevokeFailed, SignInRequired
from httpx_reauth.oauth import Issuer, RefreshTokenGrant
from httpx_reauth.signin import BrowserPrompt, BrowserSignIn, DevicePrompt, DeviceSignIn, SignInDenied, SignInExpired
from httpx_reauth.storage import FileStorage, KeyringStorage, Storage
from httpx_reauth.testing import AuthorizationServer

NAME = "my-cli"
SCOPE = "openid offline_access"  # offline_access gets a refresh token, so nobody signs in again every hour
CONSENT = {"prompt": "consent"}  # without it, many servers do not grant offline_access (OpenID Connect Core section 11)
DONE, SIGNED_OUT, FAILED, INTERRUPTED = 0, 1, 2, 130  # exit statuses

logging.getLogger("httpx_reauth").addHandler(logging.NullHandler())  # the program prints the errors itself, below


class CommandLine:
    """The commands."""

    def __init__(self, args: argparse.Namespace, person: Person) -> None:
        self.args = args
        self.person = person
        self.console = Console(highlight=False, soft_wrap=True)  # people copy addresses, so each is one line
        self.issuer = Issuer(args.issuer)
        self.auth = Reauth(
            RefreshTokenGrant(self.issuer, args.client_id), storage=self.storage(), origins=[args.api], name=NAME
        )

    def storage(self) -> Storage:
        """Return the storage, which keeps the token after the command ends."""
        if self.args.storage == "keyring":
            return KeyringStorage(NAME, user=self.args.issuer)
        return FileStorage(self.args.file)

    def login(self) -> None:
        """Sign a person in."""
        if self.args.device:
            token = DeviceSignIn(self.issuer, self.args.client_id, scope=SCOPE).run(show=self.show_code)
        else:
            sign_in = BrowserSignIn(self.issuer, self.args.client_id, scope=SCOPE, extra=CONSENT, open=self.person.open)
            token = sign_in.run(show=self.show_address)
        self.auth.sign_in(token)
        self.console.print("You are signed in.", style="green")
        if token.refresh_token is None:
            self.console.print("The server gave no refresh token: you have to sign in again soon.", style="yellow")

    def whoami(self) -> None:
        """Call the API, and print who is signed in."""
        with httpx.Client(base_url=self.args.api, auth=self.auth) as client:
            me = client.get("/me").raise_for_status().json()
        self.console.print(Text(str(me.get("name") or me.get("sub"))))  # `Text`: a name is not markup

    def logout(self) -> None:
        """Remove the token, and revoke it at the server."""
        failed: list[RevokeFailed] = []
        self.auth.store.subscribe(lambda _, action: failed.append(action) if isinstance(action, RevokeFailed) else None)
        self.auth.sign_out(revoke=True)
        self.console.print("You are signed out.")
        if failed:  # the token has been removed in any case
            self.console.print(Text(f"The server may still accept the old token: {failed[0].error}", style="yellow"))

    def show_address(self, prompt: BrowserPrompt) -> None:
        """Print the prompt for a sign-in with a browser. `str(prompt)` says the same; this looks better."""
        if prompt.is_opening:
            self.console.print("Your browser opens so that you can sign in. If it does not, open:")
            self.console.print(Text(prompt.url, style="dim"))
        else:
            self.console.print(Text(str(prompt)))

    def show_code(self, prompt: DevicePrompt) -> None:
        """Print the code in large letters, so that a person can type it on a different device."""
        where = Text.assemble("Open ", (prompt.verification_uri, "underline"), " on any device and enter")
        self.console.print(where)
        self.console.print(Panel(Text(prompt.user_code, style="bold"), expand=False, padding=(0, 4)))
        self.person.enter(prompt)


@dataclass(frozen=True)
class Person:
    """The real person: the program opens a browser, and the person enters the code."""

    open: Callable[[str], object] = webbrowser.open
    enter: Callable[[DevicePrompt], object] = repr


def parsed(argv: list[str]) -> argparse.Namespace:
    """Return the parser for the arguments of the program."""
    parser = argparse.ArgumentParser(prog="cli.py")
    parser.add_argument("--issuer", default="https://id.example.com", help="the authorization server")
    parser.add_argument("--api", default="https://api.example.com", help="whoami asks its /me")
    parser.add_argument("--client-id", default=NAME)
    parser.add_argument("--storage", choices=["file", "keyring"], default="file")
    parser.add_argument("--file", default=f"~/.config/{NAME}/token.json", help="where the file is")
    parser.add_argument("--demo", action="store_true", help="play every command against a server on loopback")
    commands = parser.add_subparsers(dest="command")
    login = commands.add_parser("login", help="sign in")
    login.add_argument("--device", action="store_true", help="by a code that is entered on another device")
    commands.add_parser("whoami", help="say who is signed in")
    commands.add_parser("logout", help="forget the token, and let the server revoke it")
    return parser.parse_args(argv)


def run(args: argparse.Namespace, person: Person) -> int:
    """Run one command, and return the exit status of the program."""
    try:
        command_line = CommandLine(args, person)
        with command_line.auth:
            getattr(command_line, args.command)()
    except SignInRequired:
        say("You are not signed in. Run: cli.py login")
        return SIGNED_OUT
    except (SignInDenied, SignInExpired) as error:
        say(str(error))
        return SIGNED_OUT
    except (httpx.HTTPError, ReauthError, ValueError) as error:  # the last: an address that is none, an API's HTML
        say(f"That did not work: {error}")
        return FAILED
    except KeyboardInterrupt:
        say("Interrupted.")
        return INTERRUPTED
    return DONE


def say(text: str) -> None:
    """One line, whatever is in it."""
    Console(highlight=False, soft_wrap=True).print(Text(text, style="red"))


def demo() -> None:
    """Run every command like a new process. Only the file keeps data between the commands."""

    def visit(url: str) -> None:
        """A person who agrees to everything, with a browser that has no window."""
        httpx.get(url, follow_redirects=True, timeout=10.0)

    person = Person(visit, lambda prompt: visit(f"{prompt.verification_uri_complete}"))
    server = AuthorizationServer(
        clients={NAME: None},
        scopes=["openid", "offline_access"],
        device_interval=0.1,
        resource=lambda _: {"name": "Ada"},
    )
    with ExitStack() as stack:
        url = stack.enter_context(server.serve())
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        common = ["--issuer", url, "--api", url, "--file", str(Path(folder, "token.json"))]
        for command in ("whoami", "login", "whoami", "logout", "whoami", "login --device", "whoami"):
            print(f"$ cli.py {command}")
            run(parsed([*common, *command.split()]), person)


def main(argv: list[str]) -> int:
    """Run the program, and return its exit status."""
    args = parsed(argv)
    if args.demo or args.command is None:
        demo()
        return DONE
    return run(args, Person())


if __name__ == "__main__":
    status = main(sys.argv[1:])
    if status:
        sys.exit(status)
