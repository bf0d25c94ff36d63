"""One refresh. This folder is imported with the first refresh. `renewal.py` describes the algorithm.

The rest of the core uses the names below, and nothing else of this folder.
"""

from __future__ import annotations

from httpx_reauth._tokens._refresh.flight import Flight
from httpx_reauth._tokens._refresh.loops import running_loop
from httpx_reauth._tokens._refresh.renewal import Renewal, reject_if_orphaned
from httpx_reauth._tokens._refresh.revocation import start_revoking_sign_out
from httpx_reauth._tokens._refresh.sync import StorageJob, report_unsaved, start_storage_job
from httpx_reauth._tokens._refresh.worker import LOOK, Worker, current_workers, loop_of_caller, workers_of

__all__ = [
    "LOOK",
    "Flight",
    "Renewal",
    "StorageJob",
    "Worker",
    "current_workers",
    "loop_of_caller",
    "reject_if_orphaned",
    "report_unsaved",
    "running_loop",
    "start_revoking_sign_out",
    "start_storage_job",
    "workers_of",
]
