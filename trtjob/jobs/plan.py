"""Divide a job into shards: files of at most `shard_size` entries, in the order of the keys.

Planning can be stopped anywhere: run again, it goes on behind the last shard that is written. Redis sees only numbers.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from heapq import merge
from itertools import dropwhile, groupby, islice
from operator import attrgetter
from pathlib import Path

from trtjob.errors import StorageError
from trtjob.jobs.folder import RESULTS, SOURCE_LIST, JobFolder, PlanEpoch, plan_key
from trtjob.jobs.listing import Entry, Listing, entry_of, listed
from trtjob.jobs.models import JobSpec
from trtjob.jobs.records import from_line, json_line

_by_key = attrgetter("key")


def write_shard(folder: JobFolder, shard: int, entries: Iterable[Entry]) -> None:
    """Write a shard's entries, unless the file is there (then it holds the same)."""
    lines = (json_line({"key": e.key, "size": e.size_bytes, "etag": e.etag}) for e in entries)
    folder.storage.write(plan_key(shard), b"".join(lines))


def read_shard(folder: JobFolder, shard: int) -> list[Entry]:
    """Return a shard's entries. Raises StorageError where the file is missing or damaged."""
    try:
        rows = [json.loads(line) for line in folder.storage.read(plan_key(shard)).splitlines()]
        return [Entry(row["key"], row["size"], row["etag"]) for row in rows]
    except (FileNotFoundError, ValueError, KeyError, TypeError) as err:
        raise StorageError(f"the plan {folder.path / plan_key(shard)} is missing or damaged: {err}") from err


def write_source_list(folder: JobFolder, keys: Iterable[str]) -> None:
    folder.storage.write(SOURCE_LIST, source_list(keys))


def source_list(keys: Iterable[str]) -> bytes:
    return b"".join(json_line({"key": key}) for key in keys)


def source_listing(folder: JobFolder, spec: JobSpec) -> Listing | Iterable[Entry]:
    """Return the source's entries as they are now, sorted by key."""
    root = Path(spec.source.root)
    if spec.source.kind == "folder":
        return Listing(root)
    lines = folder.storage.read(SOURCE_LIST).splitlines()
    return listed(root, (json.loads(line)["key"] for line in lines))


def plan_epoch(
    folder: JobFolder, spec: JobSpec, *, epoch: int, reason: str, on_shards: Callable[[list[int], int], None]
) -> PlanEpoch:
    """Write the shards of one round of planning, and commit it.

    on_shards: called with the numbers of shards just written and the images in them.
    """
    earlier = folder.epochs()
    for done in earlier:
        if done.epoch == epoch:
            return done
    first = sum(past.shards for past in earlier)
    listing: Listing | Iterable[Entry] = ()
    if reason == "retry":
        entries = _failed(folder, spec)
    else:
        listing = source_listing(folder, spec)
        entries = iter(listing) if reason == "submit" else _changed(folder, earlier, listing)
    shard, images, last_key = _written(folder, first)
    if shard > first:
        on_shards(list(range(first, shard)), images)
        entries = dropwhile(lambda entry: entry.key <= last_key, entries)
    for chunk in _batched(entries, spec.options.shard_size):
        write_shard(folder, shard, chunk)
        images += len(chunk)
        on_shards([shard], len(chunk))
        shard += 1
    ignored = dict(sorted(listing.ignored.items())) if isinstance(listing, Listing) else {}
    plan = PlanEpoch.model_validate(
        {"epoch": epoch, "reason": reason, "first_shard": first, "shards": shard - first, "images": images}
        | {"ignored": ignored}
    )
    folder.commit_epoch(plan)
    return plan


def _written(folder: JobFolder, first: int) -> tuple[int, int, str]:
    """Return the next shard's number, the images in the shards from `first` on, and their last key."""
    shard, images, last_key = first, 0, ""
    while folder.storage.exists(plan_key(shard)):
        entries = read_shard(folder, shard)
        images, last_key = images + len(entries), entries[-1].key
        shard += 1
    return shard, images, last_key


def planned_entries(folder: JobFolder, epochs: Iterable[PlanEpoch]) -> Iterator[Entry]:
    """Yield every planned image once, sorted by key, as the last epoch that has it lists it."""

    def entries(epoch: PlanEpoch) -> Iterator[Entry]:
        for shard in range(epoch.first_shard, epoch.first_shard + epoch.shards):
            yield from read_shard(folder, shard)

    # heapq.merge keeps the order of its inputs among equal keys, so the last of a group is the latest.
    for _, same in groupby(merge(*map(entries, epochs), key=_by_key), key=_by_key):
        *_, latest = same
        yield latest


def _changed(folder: JobFolder, earlier: list[PlanEpoch], listing: Iterable[Entry]) -> Iterator[Entry]:
    """Yield the entries of the source that are new, or not as they were planned."""
    planned = planned_entries(folder, earlier)
    known = next(planned, None)
    for entry in listing:
        while known is not None and known.key < entry.key:
            known = next(planned, None)
        if known is None or known.key != entry.key or known.etag != entry.etag:
            yield entry


def _failed(folder: JobFolder, spec: JobSpec) -> Iterator[Entry]:
    """Yield the images whose last record is an error."""
    root = Path(spec.source.root)
    with folder.storage.path(RESULTS).open("rb") as file:
        for line in file:
            record = from_line(line)
            if record.error is not None:
                try:
                    yield entry_of(record.image, (root / record.image).stat())
                except OSError:
                    yield Entry(record.image, 0, "")


def _batched(entries: Iterable[Entry], size: int) -> Iterator[tuple[Entry, ...]]:
    """itertools.batched, which came with Python 3.12."""
    iterator = iter(entries)
    while chunk := tuple(islice(iterator, size)):
        yield chunk
