"""The pages that a browser shows when it opens the loopback address.

They are static. They contain no secret and load nothing from elsewhere.
"""

from __future__ import annotations

import base64
import hashlib

_STYLE = """
:root { color-scheme: light dark; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; background: Canvas; color: CanvasText;
  font: 1.125rem/1.6 system-ui, sans-serif; }
main { box-sizing: border-box; max-width: 34rem; padding: 2rem 1.5rem; }
h1 { margin: 0 0 .5rem; font-size: 1.6rem; line-height: 1.25; }
p { margin: 0; }
"""

# The URL contains the code, which the server accepts once. The script removes it from the screen and from the history.
_SCRIPT = 'history.replaceState(null, "", location.pathname)'

_PAGE = (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    '<meta name="color-scheme" content="light dark">\n<title>{title}</title>\n<link rel="icon" href="data:,">\n'
    f"<style>{_STYLE.replace('{', '{{').replace('}', '}}')}</style>\n</head>\n"
    "<body>\n<main>\n<h1>{title}</h1>\n<p>{text}</p>\n</main>\n"
    f"<script>{_SCRIPT}</script>\n</body>\n</html>\n"
)


def _page(title: str, text: str) -> bytes:
    return _PAGE.format(title=title, text=text).encode("ascii")


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode("ascii")).digest()).decode("ascii") + "'"


_POLICY = (
    f"default-src 'none'; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

RECEIVED = _page(
    "You can close this window",
    "The program has received the answer and goes on with it. Return to the program.",
)
REFUSED = _page(
    "The sign-in was not completed",
    "The program says why. You can close this window and return to the program.",
)
NOT_OURS = _page(
    "This answer was not accepted",
    "The program did not use it, since it does not belong to a sign-in that is under way. You can close this window.",
)
NOT_FOUND = _page("There is nothing here", "This address only receives the answer to a sign-in.")
NOT_HTTP = _page("This request was not understood", "This address only receives the answer to a sign-in.")

_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 431: "Request Header Fields Too Large"}


def reply(status: int, page: bytes, *, with_body: bool = True) -> bytes:
    """Return a complete HTTP response. It closes the connection."""
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\n"
        "Content-Type: text/html; charset=utf-8\r\n"
        f"Content-Length: {len(page)}\r\n"
        "Cache-Control: no-store\r\n"
        f"Content-Security-Policy: {_POLICY}\r\n"
        "Referrer-Policy: no-referrer\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode("ascii") + (page if with_body else b"")
