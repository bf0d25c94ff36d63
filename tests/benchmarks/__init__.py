"""Benchmarks: what the library costs. They print ratios, and both numbers of a ratio come from the same run.

pytest never runs them. Run them from the top of the repository, in an environment that has httpx:

    python -m tests.benchmarks                    all of them, some minutes
    python -m tests.benchmarks flow memory        some of them

| name | question |
|---|---|
| flow | What does the auth flow cost with a valid token, compared with the smallest bearer auth? |
| whole_request | What is the same cost in a whole request, in process and over a loopback socket? |
| waiting | 10,000 tasks need the first token at the same time: how much longer than the token endpoint does it take? |
| expiries | 200 workers send requests while a short-lived token is renewed again and again: is any request delayed? |
| slow_requests | Are 100 slow requests at the same time with a valid token as fast as without auth? |
| memory | How many bytes does an auth object take, with its token, if there are 100,000? |
| imports | How much CPU time does the import take, after httpx was imported? |
| signatures | How many milliseconds does a signed assertion take, with RS256 and with ES256? |
| processes | 8 and 50 processes share a token in a file or in Redis: token requests, time, and the cost of a storage? |

If valgrind is installed, its callgrind counts instructions, which hardly depend on the machine's other load. All other
benchmarks need an idle machine. No benchmark takes more than a minute. All traffic stays on loopback.
"""
