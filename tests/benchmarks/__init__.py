"""Benchmarks: what the library costs, printed as ratios that are measured in one and the same run.

They are run on purpose, never by pytest, from the top of the repository, in an environment that has httpx:

    python -m tests.benchmarks                    all of them, some minutes
    python -m tests.benchmarks flow memory        some of them

| name | what it answers |
|---|---|
| flow | What does the auth flow cost with a valid token, against the smallest bearer auth? |
| whole_request | What does that come to in a whole request: in process, and over a loopback socket? |
| waiting | 10,000 tasks need the first token at once: how much longer than the token endpoint takes? |
| expiries | 200 workers go on while a short-lived token is renewed again and again: does any of them notice? |
| slow_requests | 100 slow requests side by side with a valid token: as fast as without auth? |
| memory | How many bytes does an auth object take, with its token, when there are 100,000? |
| imports | How much CPU time does the import take, on top of httpx? |
| signatures | How many milliseconds does a signed assertion take, with RS256 and with ES256? |
| processes | 8 and 50 processes with one token, in a file or in Redis: token requests, time, and what a storage adds? |

Instructions are counted by valgrind's callgrind, where it is installed; they hardly depend on what else the machine
does. Everything else wants a machine with nothing else to do. No benchmark takes more than a minute; whatever is sent
stays on loopback.
"""
