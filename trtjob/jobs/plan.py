"""Divide a job into shards: files of at most `shard_size` entries, in the order of the keys.

Planning can be stopped anywhere: run again, it goes on behind the last shard that is written. Redis sees only numbers.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from heapq import merge
from itertools import dropwhile, groupby, islice
from operator import attrgetter
from typing import TypedDict

from trtjob.errors import StorageError
from trtjob.jobs.ahead import in_order
from trtjob.jobs.folder import RESULTS, SOURCE_LIST, JobFolder, PlanEpoch, plan_key
from trtjob.jobs.listing import Entry, Images
from trtjob.jobs.models import JobSpec
from trtjob.jobs.records import json_line, parse_line, read_records
from trtjob.jobs.storage import Storage

_by_key = attrgetter("key")


def write_shard(folder: JobFolder, shard: int, entries: Iterable[Entry]) -> None:
    """Write a shard's entries, unless the file is there (then it holds the same)."""
    lines = (json_line({"key": e.key, "size": e.size_bytes, "etag": e.etag}) for e in entries)
    folder.storage.write(plan_key(shard), b"".join(lines))


def read_shard(folder: JobFolder, shard: int) -> list[Entry]:
    """Return a shard's entries. Raises StorageError where the file is missing or damaged."""
    place = folder.storage.place(plan_key(shard))
    try:
        rows = [parse_line(line) for line in folder.storage.read(plan_key(shard)).splitlines()]
        entries = [Entry(str(row["key"]), int(row["size"]), str(row["etag"])) for row in rows]
    except (FileNotFoundError, ValueError, KeyError, TypeError) as err:
        raise StorageError(f"the plan {place} is missing or damaged: {err}") from err
    if not entries:
        raise StorageError(f"the plan {place} is missing or damaged: it is empty")
    return entries


def write_source_list(folder: JobFolder, keys: Iterable[str]) -> None:
    folder.storage.write(SOURCE_LIST, source_list(keys))


def source_list(keys: Iterable[str]) -> bytes:
    return b"".join(json_line({"key": key}) for key in keys)


@dataclass(slots=True)
class Named:
    """The images that a user named, as they are now; one that is not there stays, to end as an error record."""

    source: Storage
    keys: Iterable[str]
    ignored: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[Entry]:
        return map(self.source.entry, self.keys)


def source_images(folder: JobFolder, spec: JobSpec, source: Storage, after: str = "") -> Images:
    """Return the source's images behind the key `after`, as they are now, sorted by key."""
    if spec.source.kind == "folder":
        return source.images(after)
    return Named(source, dropwhile(lambda key: key <= after, _listed(folder)))


def _listed(folder: JobFolder) -> Iterator[str]:
    try:
        for line in folder.storage.lines(SOURCE_LIST):
            yield str(parse_line(line)["key"])
    except (FileNotFoundError, ValueError, KeyError, TypeError) as err:
        raise StorageError(f"the list {folder.storage.place(SOURCE_LIST)} is missing or damaged: {err}") from err


def plan_epoch(
    folder: JobFolder,
    spec: JobSpec,
    source: Storage,
    *,
    epoch: int,
    reason: str,
    on_shards: Callable[[list[int], int], None],
) -> PlanEpoch:
    """Write the shards of one round of planning, and commit it.

    source: where the images are.
    on_shards: called with the numbers of shards just written, or found written, and the images in them.
    """
    earlier = folder.epochs()
    for done in earlier:
        if done.epoch == epoch:
            on_shards(list(done.numbers), done.images)
            return done
    first = sum(past.shards for past in earlier)
    shard, planned, last_key = _written(folder, first)
    if shard > first:
        on_shards(list(range(first, shard)), planned)
    images: Images = Named(source, ())
    match reason:
        case "retry":
            entries = iter(Named(source, _failed(folder, last_key)))
        case "submit":
            images = source_images(folder, spec, source, last_key)
            entries = iter(images)
        case _:
            images = source_images(folder, spec, source)
            entries = dropwhile(lambda entry: entry.key <= last_key, _changed(folder, earlier, images))
    chunks = enumerate(_batched(entries, spec.options.shard_size), shard)
    for number, count in in_order(lambda numbered: _write_numbered(folder, *numbered), chunks):
        on_shards([number], count)
        planned += count
        shard = number + 1
    plan = PlanEpoch.model_validate(
        {"epoch": epoch, "reason": reason, "first_shard": first, "shards": shard - first, "images": planned}
        | {"ignored": dict(sorted(images.ignored.items()))}
    )
    folder.commit_epoch(plan)
    return plan


def _write_numbered(folder: JobFolder, shard: int, entries: tuple[Entry, ...]) -> tuple[int, int]:
    write_shard(folder, shard, entries)
    return shard, len(entries)


def _written(folder: JobFolder, first: int) -> tuple[int, int, str]:
    """Return the next shard's number, the images in the shards from `first` on, and their last key.

    Shards are written several at a time, so an interruption can leave some behind a gap: nobody has been told of those,
    and they are removed.
    """
    found = [shard for shard in folder.planned_shards() if shard >= first]
    end = next((n for n, shard in enumerate(found, first) if n != shard), first + len(found))
    for stray in found[end - first :]:
        folder.storage.delete(plan_key(stray))
    lines = in_order(lambda shard: folder.storage.read(plan_key(shard)).count(b"\n"), range(first, end))
    return end, sum(lines), read_shard(folder, end - 1)[-1].key if end > first else ""


def planned_entries(folder: JobFolder, epochs: Iterable[PlanEpoch]) -> Iterator[Entry]:
    """Yield every planned image once, sorted by key, as the last epoch that has it lists it."""

    def entries(epoch: PlanEpoch) -> Iterator[Entry]:
        for shard in epoch.numbers:
            yield from read_shard(folder, shard)

    # heapq.merge keeps the order of its inputs among equal keys, so the last of a group is the latest.
    for _, same in groupby(merge(*map(entries, epochs), key=_by_key), key=_by_key):
        *_, latest = same
        yield latest


class Committed(TypedDict):
    ok: int
    failed: int
    kinds: Counter[str]  # the failed, by kind
    committed: list[int]


def committed_counts(folder: JobFolder, first_shard: int) -> Committed:
    """Count what the shards from `first_shard` on have committed."""
    counts = Committed(ok=0, failed=0, kinds=Counter(), committed=[])
    for manifest in in_order(folder.manifest, (shard for shard in folder.committed_shards() if shard >= first_shard)):
        if manifest is not None:
            counts["ok"] += manifest.ok
            counts["failed"] += manifest.failed
            counts["kinds"] += Counter(manifest.failures)
            counts["committed"].append(manifest.shard)
    return counts


def kept_counts(folder: JobFolder, epoch: PlanEpoch) -> tuple[int, Counter[str]]:
    """Return how many good images, and failed ones by kind, an epoch leaves as the earlier ones made them."""
    redone = planned_entries(folder, [epoch])
    again = next(redone, None)
    ok, kinds = 0, Counter[str]()
    for record in read_records(folder.storage, RESULTS):
        while again is not None and again.key < record.image:
            again = next(redone, None)
        if again is None or again.key != record.image:
            if record.error is None:
                ok += 1
            else:
                kinds[record.error.kind] += 1
    return ok, kinds


def _changed(folder: JobFolder, earlier: list[PlanEpoch], listing: Iterable[Entry]) -> Iterator[Entry]:
    """Yield the entries of the source that are new, or not as they were planned."""
    planned = planned_entries(folder, earlier)
    known = next(planned, None)
    for entry in listing:
        while known is not None and known.key < entry.key:
            known = next(planned, None)
        if known is None or known.key != entry.key or known.etag != entry.etag:
            yield entry


def _failed(folder: JobFolder, after: str) -> Iterator[str]:
    """Yield the images behind `after` whose last record is an error."""
    failed = (r.image for r in read_records(folder.storage, RESULTS) if r.error is not None)
    return dropwhile(lambda key: key <= after, failed)


def _batched(entries: Iterable[Entry], size: int) -> Iterator[tuple[Entry, ...]]:
    """itertools.batched, which came with Python 3.12."""
    iterator = iter(entries)
    while chunk := tuple(islice(iterator, size)):
        yield chunk
