"""A renewal by many processes without this package: the least time that the machine and httpx need.

One process posts the refresh token and replaces a file. The others only look for the file. There is no lock, no store
and no thread, nothing is synced to the disk, and nothing keeps two of them from posting.
"""

from __future__ import annotations

import json
import os
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx
from fleet_worker import LIMIT, Order

LOOK = 0.005  # seconds between two looks; a `FileStorage` looks as often


def work(pipe: Connection, gate: Any, order: Order) -> None:
    """Run one process. `order.place.path` is a file that does not exist yet.

    The process gets the refresh token, or None.
    """
    file = Path(order.place.path)
    with httpx.Client(base_url=order.url, trust_env=False, timeout=LIMIT) as client:
        pipe.send("ready")
        refresh_token = pipe.recv()
        gate.wait(LIMIT)
        if refresh_token:
            form = {"grant_type": "refresh_token", "client_id": "app", "refresh_token": refresh_token}
            new = file.with_suffix(".new")
            new.write_bytes(client.post("/token", data=form).raise_for_status().content)
            new.replace(file)
        while not os.path.exists(file):  # noqa: PTH110 - the cheapest check there is
            time.sleep(LOOK)
        assert json.loads(file.read_bytes())["access_token"]
        pipe.send(time.monotonic())
        pipe.recv()
