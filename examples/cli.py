"""A command line that signs people in: `login` by the browser or by a code, `whoami`, `logout`.

The token is kept in a file that nobody else can read, or in the desktop's secret store. `whoami` finds it there and
renews it when it is time; of several commands that run at once, one does. `logout` forgets it here and lets the server
revoke it. A person who is not signed in reads how to do that.

Run it: `python examples/cli.py`, after `pip install 'httpx-reauth[file]' rich`, plays every command against a server on
loopback (so does `--demo`). Against one of yours: `... cli.py --issuer https://id.example.com --api
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
SCOPE = "openid offline_access"  # the second one brings a refresh token: nobody signs in again every hour
CONSENT = {"prompt": "consent"}  # without it many servers leave that scope out (OpenID Connect Core section 11)
DONE, SIGNED_OUT, FAILED, INTERRUPTED = 0, 1, 2, 130  # exit statuses

logging.getLogger("httpx_reauth").addHandler(logging.NullHandler())  # what goes wrong is said to the person, below


class CommandLine:
    """The commands."""

    def __init__(self, args: argparse.Namespace, person: Person) -> None:
        self.args = args
        self.person = person
        self.console = Console(highlight=False, soft_wrap=True)  # addresses are copied: none may be broken into lines
        self.issuer = Issuer(args.issuer)
        self.auth = Reauth(
            RefreshTokenGrant(self.issuer, args.client_id), storage=self.storage(), origins=[args.api], name=NAME
        )

    def storage(self) -> Storage:
        """Where the token outlives the command."""
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
        """Ask the API."""
        with httpx.Client(base_url=self.args.api, auth=self.auth) as client:
            me = client.get("/me").raise_for_status().json()
        self.console.print(Text(str(me.get("name") or me.get("sub"))))  # `Text`: markup in it means nothing

    def logout(self) -> None:
        """Forget the token, here and at the server."""
        failed: list[RevokeFailed] = []
        self.auth.store.subscribe(lambda _, action: failed.append(action) if isinstance(action, RevokeFailed) else None)
        self.auth.sign_out(revoke=True)
        self.console.print("You are signed out.")
        if failed:  # the token is forgotten here all the same
            self.console.print(Text(f"The server may still accept the old token: {failed[0].error}", style="yellow"))

    def show_address(self, prompt: BrowserPrompt) -> None:
        """What a person needs who signs in with a browser: str(prompt) has all of it, this is nicer."""
        if prompt.is_opening:
            self.console.print("Your browser opens so that you can sign in. If it does not, open:")
            self.console.print(Text(prompt.url, style="dim"))
        else:
            self.console.print(Text(str(prompt)))

    def show_code(self, prompt: DevicePrompt) -> None:
        """The code, large enough to be read from one screen and typed at another."""
        where = Text.assemble("Open ", (prompt.verification_uri, "underline"), " on any device and enter")
        self.console.print(where)
        self.console.print(Panel(Text(prompt.user_code, style="bold"), expand=False, padding=(0, 4)))
        self.person.enter(prompt)


@dataclass(frozen=True)
class Person:
    """Who sits here: a browser is opened for them, and they enter codes themselves."""

    open: Callable[[str], object] = webbrowser.open
    enter: Callable[[DevicePrompt], object] = repr


def parsed(argv: list[str]) -> argparse.Namespace:
    """The arguments of the program."""
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
    """One command; the exit status of the program."""
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
    """Every command, as a new process would run it: what one leaves for the next is in the file."""

    def visit(url: str) -> None:
        """Somebody who says yes to everything, with a browser that is no window."""
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
    """The program; its exit status."""
    args = parsed(argv)
    if args.demo or args.command is None:
        demo()
        return DONE
    return run(args, Person())


if __name__ == "__main__":
    status = main(sys.argv[1:])
    if status:
        sys.exit(status)
