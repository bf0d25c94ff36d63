"""Imports modules in the fork server. The processes of the fleet inherit them, and need not import them."""

import gc
from importlib import import_module

import fleet_worker

for _name in (
    "pytest.__main__",  # the main module of the children
    "encodings.idna",
    "multiprocessing.popen_fork",
    "multiprocessing.popen_forkserver",
    "multiprocessing.synchronize",
    "httpcore",
    "filelock",
    "redis.asyncio",
    "httpx_reauth._tokens._refresh.renewal",  # the first refresh imports it
    "httpx_reauth._tokens._refresh.worker",
    "httpx_reauth._tokens._refresh.sync",
):
    import_module(_name)

fleet_worker.new_client("").close()  # the first client in a process sets up OpenSSL
fleet_worker.use_a_file()  # filelock imports more modules with its first lock
gc.collect()
gc.freeze()  # a collection in a child does not touch these objects, so parent and child share their memory
