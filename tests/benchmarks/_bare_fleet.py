"""What a renewal by many processes costs without this package: the floor that the machine and httpx set.

One process posts the refresh token and replaces a file; the others do nothing but look for it. No lock, no store, no
thread, nothing synced to the disk; and nothing that would keep two of them from posting.
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

LOOK = 0.005  # seconds between two looks; as often as a `FileStorage` looks


def work(pipe: Connection, gate: Any, order: Order) -> None:
    """One process; `order.place.path` is the file, which is not there yet. It hears the refresh token, or nothing."""
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
        while not os.path.exists(file):  # noqa: PTH110 - as cheap as it can be
            time.sleep(LOOK)
        assert json.loads(file.read_bytes())["access_token"]
        pipe.send(time.monotonic())
        pipe.recv()
