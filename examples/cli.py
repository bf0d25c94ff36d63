"""A command line that keeps its token in a file, and asks to sign in when it must (device flow, RFC 8628).

`login` shows a link and a code, to be typed on any device; the token goes into a file that nobody else can read. `me`
finds it there, renews it when it is time (one of several running commands does), and says "sign in" when only that
helps. `logout` forgets it.

Run it: `python examples/cli.py`, after `pip install 'httpx-reauth[file]'`, shows all of that against a server on
loopback. Against one of yours: `... cli.py --server https://id.example.com login`.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from httpx_reauth import Reauth, ReauthError, SignInRequired, Token
from httpx_reauth.oauth import RefreshTokenGrant
from httpx_reauth.storage import FileStorage
from httpx_reauth.testing import Answer, AuthorizationServer, Received, faults

CLIENT_ID = "my-cli"
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"

logging.getLogger("httpx_reauth").addHandler(logging.NullHandler())  # what goes wrong is told to the user below


def sign_in(server: str, sleep: Callable[[float], None] = time.sleep) -> Token:
    """Show the user where to sign in, and wait until it is done (RFC 8628 §3.2 to §3.5)."""
    with httpx.Client(base_url=server, timeout=5.0) as client:
        device = client.post("/device_authorization", data={"client_id": CLIENT_ID}).raise_for_status().json()
        print(f"Open {device['verification_uri']} and enter {device['user_code']}")
        form = {"grant_type": DEVICE_CODE, "device_code": device["device_code"], "client_id": CLIENT_ID}
        interval = device.get("interval", 5)
        while True:
            sleep(interval)
            try:
                return Token.from_response(client.post("/token", data=form))
            except ReauthError as error:
                if error.error == "slow_down":
                    interval += 5
                elif error.error != "authorization_pending":
                    raise  # access_denied, expired_token: begin again


def run(argv: list[str]) -> int:
    """The program; its exit status."""
    parser = argparse.ArgumentParser(prog="cli.py")
    parser.add_argument("command", choices=["login", "me", "logout"])
    parser.add_argument("--server", default="https://id.example.com")
    parser.add_argument("--file", default="~/.config/my-cli/token.json", help="where the token is kept")
    args = parser.parse_args(argv)
    grant = RefreshTokenGrant(f"{args.server}/token", CLIENT_ID)
    with Reauth(grant, storage=FileStorage(args.file), origins=[args.server]) as auth:
        try:
            if args.command == "login":
                auth.sign_in(sign_in(args.server))
                print("You are signed in.")
            elif args.command == "logout":
                auth.sign_out()
                print("You are signed out.")
            else:
                with httpx.Client(base_url=args.server, auth=auth) as client:
                    print(client.get("/me").raise_for_status().json()["name"])
        except SignInRequired:
            print("You are not signed in. Run: cli.py login")
            return 1
        except (httpx.HTTPError, ReauthError) as error:
            print(f"That did not work: {error}")
            return 2
    return 0


def stand_in() -> AuthorizationServer:
    """A server with a user who has typed the code by the time of the second look."""
    server = AuthorizationServer(access="open", token_path="/none", device_path="/none")
    api = AuthorizationServer(resource=lambda _: {"name": "Ada"})
    looks = iter(["authorization_pending"])

    def answer(request: Received) -> Answer | dict[str, object]:
        if request.path == "/device_authorization":
            page = f"http://{request.header('host')}/device"
            return {"device_code": "1", "user_code": "WDJB-MJHT", "verification_uri": page, "interval": 0}
        if request.form.get("grant_type") != DEVICE_CODE:
            return api.respond(request.method, request.path, request.headers, request.body)
        pending = next(looks, None)
        if pending:
            return faults.reply(400, {"error": pending}).answer
        token = api.issue()
        return {"access_token": token.access_token, "refresh_token": token.refresh_token, "expires_in": 3600}

    server.resource = answer
    return server


def main() -> None:
    """Each command is a process of its own in real life: what one leaves for the next is in the file."""
    with stand_in().serve() as url, tempfile.TemporaryDirectory() as folder:
        for command in ["me", "login", "me", "logout", "me"]:
            print(f"$ cli.py {command}")
            run([command, "--server", url, "--file", str(Path(folder, "token.json"))])


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        sys.exit(run(sys.argv[1:]))
