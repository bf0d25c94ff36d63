"""Soak: a fleet of clients at a real loopback server for as long as told, with faults, and what must hold all the time.

`python -m tests.soak --minutes 5` reports requests, refreshes, errors, latencies, memory, open files and threads.
"""
