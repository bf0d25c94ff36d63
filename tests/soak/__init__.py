"""A soak test: many clients use a real loopback server for a long time, with faults, while invariants are checked.

`python -m tests.soak --minutes 5` reports requests, refreshes, errors, latencies, memory, open files and threads.
"""
