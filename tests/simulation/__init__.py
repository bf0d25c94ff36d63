"""Simulated schedules: the real library in random worlds, each made and scheduled by one integer, in virtual time.

Run from the top of the repository, in an environment with the extra `[test]`:

    python -m tests.simulation --schedules 1000000 --jobs 2      the long run, with progress
    python -m tests.simulation --seed 4711                       one world once more, with its trace

A world has processes (some of them on machines whose clocks are wrong), each with `Reauth` objects and clients:
threads, asyncio and trio loops. The seed decides everything: what the clients and the servers do, what happens from
outside (revocations, clocks that jump, machines that sleep, people who sign in and out, processes that die), and at
each point where several threads could run, which one does. So a seed that fails, fails each time.

Most storages here have a lock that dies with its holder. In some worlds the storage is the real `RedisStorage`, whose
client is simulated: its scripts are told once more in Python (`test_scripts.py` compares them with a real server), a
lease expires by true time, replies are lost, and data too. In some worlds with a storage each process has a
`ReauthPool` with room for one object, and gets the object of its user anew for each thing that a client does, while
another user pushes that object out, and people disconnect.

| module | its one job |
|---|---|
| `_kernel`, `_machine` | virtual threads (greenlets), virtual time and clocks |
| `_foreign`, `_loops` | asyncio and trio on such a thread |
| `_virtual` | puts all that in place of the real thing |
| `_primitives` | what the library finds in place of `threading`, its lock and chance |
| `_settings`, `_world` | what a seed makes |
| `_server`, `_values`, `_storage`, `_redis` | what the library talks to, and all their faults |
| `_pool` | the pool of a process, in some worlds |
| `_clients`, `_deeds`, `_disturb` | what happens |
| `_watch` | the events of a store: legal, and each refresh for a reason |
| `_play`, `_many` | one world, from its beginning to the last look; many |
| `_mutants` | known bugs, to show that the simulation finds them |

These statements must hold. Each says where it is checked:

- **One refresh under way for each refresh token** (and one login): when a token request begins. Over all processes,
  with a storage.
- **No refresh token is used twice, none that was rotated is lost**: when the server gets it, and in the last look,
  which spends what each process holds. A refresh token may come again in these cases only, each of which is an unknown
  outcome that the documentation tells of: its answer was lost or garbled on the way; the refresh was stopped by the
  refresh timeout or by the end of its loop (or given up, as its loop stood still beyond the timeout); its process died
  before the successor was saved; the successor could not be saved; a sign-out has overtaken the refresh and could not
  clear the storage, which it raises. That a refresh is stopped for any other reason, such as a cancelled caller, is a
  violation by itself. In Redis there are three more: the lease was lost under its living holder (it expired, or Redis
  lost it) before the successor was saved under it; Redis has lost its data; a sign-in was saved, but the reply was
  lost, so that its process saves it again over what others have made of it. In the first case, two refreshes may be
  under way at once.
- **A lease is needed, and kept**: each token request and each write is made by somebody who goes by a lease. It expires
  under nobody who did not stand still, or run longer than a coroutine may, or wait for a Redis that failed. Who has
  lost it overwrites nothing that another has written since. No lease stays behind that nobody goes by: one whose reply
  was lost is given back.
- **A pool has one object for each user**: no two are in use, unless somebody has disconnected. No object goes before
  its storage knows of all its changes. What a server has refused is not asked again by the next object, nor by the same
  one, until the back-off ends or somebody signs in.
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
