"""Imported by the fork server alone: what it has, its children have, and need not import each for itself."""

import gc
from importlib import import_module

import fleet_worker

for _name in (
    "pytest.__main__",  # what the children take for their main module
    "encodings.idna",
    "multiprocessing.popen_fork",
    "multiprocessing.popen_forkserver",
    "multiprocessing.synchronize",
    "httpcore",
    "filelock",
    "redis.asyncio",
    "httpx_reauth._tokens._refresh.renewal",  # imported with the first refresh
    "httpx_reauth._tokens._refresh.worker",
    "httpx_reauth._tokens._refresh.sync",
):
    import_module(_name)

fleet_worker.new_client("").close()  # the first one in a process sets up OpenSSL
fleet_worker.use_a_file()  # filelock imports the rest of itself with its first lock
gc.collect()
gc.freeze()  # a collection in a child leaves all of this alone, so its pages stay shared
