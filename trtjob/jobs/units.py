"""The units of work of a job: to plan it, to run one of its shards, to finish it."""

PLAN = "plan"
FINISH = "finish"


def shard_unit(shard: int) -> str:
    return f"shard-{shard:05d}"


def shard_of(unit: str) -> int | None:
    """Return a unit's shard number, None for `plan` and `finish`."""
    return int(unit.removeprefix("shard-")) if unit.startswith("shard-") else None
