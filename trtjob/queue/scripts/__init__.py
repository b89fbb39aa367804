"""The steps that must be one step in Redis: Lua, run by the server without anything in between.

A file holds one script, and opens with every key and argument that it takes. A line `-- include lib/job` puts that file
before it. Each sees three tables: KEY, how keys begin (`trtjob.queue.keys`), LIMIT, and has_ended, of job states.

Who owns a unit of work is in the hash `:holders` of its job: the last one that claimed it and has not given it up. The
lease beside it only says for how long nobody else may claim it. So a worker that slept through its lease goes on where
nobody came in between; where somebody did, every script refuses the sleeper, whatever became of the other since.

The order of the one queue: first the class of the job: high, normal, low. In a class the jobs take turns: a message
goes behind the last one of its job, and from there behind one of every other job. So two jobs share the workers evenly,
whatever they ask for and when, and a small job that is handed in behind a large one waits for one message of it and not
for all.

A client that loses its connection before the reply comes sends its command again. So each script may come twice, and
its file says what happens then. Outside of scripts: HSET, SADD, DEL, EXPIRE and the like say what shall be; a lock that
was taken without our hearing of it runs out; a message that RQ took so is not leased, and is asked for again.
"""

import re
from functools import cache
from importlib.resources import files

from trtjob.jobs.states import TERMINAL
from trtjob.queue import keys, rq_internals

# Enough for every shard of a million images; some 100 more may be kept, since the server drops them by the block.
MOST_EVENTS = 10_000
# The last calls that a job remembers, to know one that is sent again: far more than can lie between the two.
MOST_CALLS = 64
_NOTICE_TTL_S = 172_800  # above GIVE_UP_S of trtjob.queue.notifications
_INCLUDE = re.compile(r"^-- include (\S+)\n", re.MULTILINE)
_KEY = {
    "jobs": keys.JOBS,
    "state": keys.STATE,
    "degraded": keys.DEGRADED,
    "queue": keys.QUEUE,
    "ended": keys.ENDED,
    "job": keys.JOB,
    "lease": keys.LEASE,
    "worker": keys.WORKER,
    "notices": keys.NOTICES,
    "notice": keys.NOTICE,
    "message": rq_internals.MESSAGE,
}


@cache
def load(name: str) -> str:
    """Return a script, with the tables and the files that it needs before it."""
    return _tables() + "".join(_with_includes(name, []))


def names() -> list[str]:
    """Return the names of all scripts."""
    return sorted(file.name.removesuffix(".lua") for file in files(__package__).iterdir() if file.name.endswith(".lua"))


def _with_includes(name: str, seen: list[str]) -> list[str]:
    seen.append(name)
    text = files(__package__).joinpath(f"{name}.lua").read_text("utf-8")
    before = [part for other in _INCLUDE.findall(text) if other not in seen for part in _with_includes(other, seen)]
    return [*before, text]


def _tables() -> str:
    begin = ", ".join(f"{name} = '{key}'" for name, key in _KEY.items())
    parts = ", ".join(f"'{part}'" for part in keys.PARTS)
    ended = ", ".join(f"{state} = true" for state in sorted(TERMINAL))
    return (
        f"local KEY = {{{begin}, parts = {{{parts}}}}}\n"
        f"local LIMIT = {{events = {MOST_EVENTS}, calls = {MOST_CALLS}, notice_s = {_NOTICE_TTL_S}}}\n"
        f"local has_ended = {{{ended}}}\n"
    )
