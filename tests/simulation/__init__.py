"""Simulated schedules: the real library in random worlds, each made and scheduled by one integer, in virtual time.

Run from the top of the repository, in an environment with the extra `[test]`:

    python -m tests.simulation --schedules 1000000 --jobs 2      the long run, with progress
    python -m tests.simulation --seed 4711                       one world once more, with its trace

A world has processes (some of them on machines whose clocks are wrong), each with `Reauth` objects and clients:
threads, asyncio and trio loops. The seed decides everything: what the clients and the servers do, what happens from
outside (revocations, clocks that jump, machines that sleep, people who sign in and out, processes that die), and at
each point where several threads could run, which one does. So a seed that fails, fails each time.

Most storages here have a lock that dies with its holder. In some worlds the storage is the real `RedisStorage`, whose
client is simulated: its scripts are written again in Python (`test_scripts.py` compares them with a real server), a
lease expires by true time, and replies and data may be lost. In some worlds with a storage each process has a
`ReauthPool` with room for one object. It asks the pool for the object of its user before each call of a client.
Meanwhile another user pushes that object out, and people disconnect.

| module | what it does |
|---|---|
| `_kernel`, `_machine` | virtual threads (greenlets), virtual time and clocks |
| `_foreign`, `_loops` | asyncio and trio on such a thread |
| `_virtual` | patches the library, asyncio and trio with all of that |
| `_primitives` | the virtual `threading`, lock and random numbers for the library |
| `_settings`, `_world` | the settings and the objects that a seed makes |
| `_server`, `_values`, `_storage`, `_redis` | the servers and the storages, and their faults |
| `_pool` | the pool of a process, in some worlds |
| `_clients`, `_deeds`, `_disturb` | the clients, their calls, and the disturbances |
| `_watch` | checks that the events of a store are legal, and that each refresh has a reason |
| `_play`, `_many` | play one world, from its beginning to the last check; play many |
| `_mutants` | known bugs, to show that the simulation finds them |

These statements must hold. Each says where it is checked:

- **One refresh under way for each refresh token** (and one login): when a token request begins. Over all processes,
  with a storage.
- **No refresh token is used twice, none that was rotated is lost**: when the server gets it, and in the last check,
  which uses the token of each process. A refresh token may come again only in these cases, and the documentation
  describes each of them as an unknown outcome: its answer was lost or garbled on the way; the refresh was stopped by
  the refresh timeout or by the end of its loop (or given up, because its loop had stopped beyond the timeout); its
  process died before the new token was saved; the new token could not be saved; a sign-out has superseded the refresh,
  could not clear the storage, and raised that. If a refresh is stopped for any other reason, such as a cancelled
  caller, that is a violation. In Redis there are three more cases: the living holder of the lease lost it (it expired,
  or Redis lost it) before the new token was saved under it; Redis has lost its data; a sign-in was saved, but the reply
  was lost, so its process saves it again over a later token. In the first case, two refreshes may run at the same time.
- **A lease is needed, and kept**: the process that makes a token request or a write holds a lease. A lease expires only
  if its holder stopped, or ran longer than a coroutine may, or waited for a Redis that failed. A process that has lost
  its lease overwrites nothing that another has written since. No lease stays that no process holds: if the reply to the
  take was lost, the lease is released.
- **A pool has one object for each user**: no two are in use, unless somebody has disconnected. No object leaves before
  its storage knows all its changes. After a server has refused a token, neither the next object nor the same one sends
  it again, until the back-off ends or somebody signs in.
- **Nobody hangs**: at the end, all threads have ended. No wait is longer than the refresh timeout, unless somebody
  signed in or out, a loop ended, or a machine slept meanwhile.
- **No request without a token, and none to another server with one**: when it is sent. There is at most one replay,
  with another token.
- **As few token requests as there are reasons**: each refresh has a reason (there was no token, it was refused, it is
  old enough), and begins after the back-off of the last one that failed.
- **The events of a store are legal**, by the diagram in `httpx_reauth/_state/reduce.py`.
- **No error without a reason**: if nothing was out of order, nothing is raised. In the calm period at the end,
  everybody gets a token. If only a sign-in can help, it does help.
"""
