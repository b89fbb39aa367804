"""The records of a job, from its shards, in the order of `results.jsonl`."""

from collections import Counter
from collections.abc import Iterable, Iterator
from heapq import merge
from itertools import groupby, zip_longest
from operator import attrgetter

from trtjob.errors import StorageError
from trtjob.jobs.folder import JobFolder, PlanEpoch
from trtjob.jobs.plan import planned_entries, read_shard
from trtjob.jobs.records import Record, read_records

_by_image = attrgetter("image")


def merged_records(folder: JobFolder, epochs: list[PlanEpoch] | None = None) -> Iterator[Record]:
    """Yield the record of every planned image once, sorted by `image`; of several, that of the last epoch.

    epochs: the rounds of planning, all unless given.
    Holds one record and one shard's plan of each epoch at a time. An image that an update no longer found in the source
    keeps its record. Raises StorageError where a shard is not committed, where records and plan are not of the same
    images, or where the plan has fewer than were listed: these comparisons are what the receipt stands on.
    """
    epochs = folder.epochs() if epochs is None else epochs
    counts = Counter[int]()
    planned = (entry.key for entry in planned_entries(folder, epochs, counts))
    images = 0
    for key, record in zip_longest(planned, _latest(folder, epochs)):
        if record is None or key != record.image:
            wanted = "no more images" if key is None else repr(key)
            found = "no record" if record is None else f"a record of {record.image!r}"
            raise StorageError(
                f"{folder.uri}: the plan lists {wanted}, but the shards hold {found}: a file there is damaged. "
                "Remove the folder and run the job again"
            )
        images += 1
        yield record
    _check_counts(folder, epochs, counts, images)


def committed_records(folder: JobFolder) -> Iterator[Record]:
    """Yield the record of every image whose shard is committed once, sorted by `image`, of a job that is not complete.

    Raises StorageError where a shard's plan or records are not there.
    """
    committed = folder.committed_shards()
    known = set(committed)
    runs = [[shard for shard in run if shard in known] for epoch in folder.epochs() for run in epoch.runs]
    planned = {shard for epoch in folder.epochs() for shard in epoch.numbers}
    return _latest_of(folder, [*runs, *_runs_of(folder, [shard for shard in committed if shard not in planned])])


def _runs_of(folder: JobFolder, shards: list[int]) -> list[list[int]]:
    """Return shards of a round that is still planned, in runs: its end would say where its keys began anew."""
    newest, last_key = folder.newest_round(), ""
    runs: list[list[int]] = []
    for shard in shards:
        assert newest is not None, "a shard is committed, so a round was begun"
        entries = read_shard(folder, newest.epoch, shard)
        if not runs or entries[0].key <= last_key:
            runs.append([])
        runs[-1].append(shard)
        last_key = entries[-1].key
    return runs


def _check_counts(folder: JobFolder, epochs: list[PlanEpoch], counts: Counter[int], images: int) -> None:
    """Compare what the plan holds with what was counted when it was made, and with what the source had last."""
    listed = next((epoch.listed for epoch in reversed(epochs) if epoch.listed is not None), 0)
    wanted = [(f"round {epoch.epoch} planned", epoch.images, counts[epoch.epoch]) for epoch in epochs]
    for what, count, found in [*wanted, ("the source listed", listed, min(listed, images))]:
        if count != found:
            raise StorageError(
                f"{folder.uri}: {what} {count:,} images, but the plan holds {found:,}: a file there is damaged. "
                "Remove the folder and run the job again"
            )


def _latest(folder: JobFolder, epochs: list[PlanEpoch]) -> Iterator[Record]:
    return _latest_of(folder, [run for epoch in epochs for run in epoch.runs])


def _latest_of(folder: JobFolder, runs: Iterable[Iterable[int]]) -> Iterator[Record]:
    # heapq.merge keeps the order of its inputs among equal images, so the last of a group is the latest.
    streams = (_records(folder, run) for run in runs)
    for _, same in groupby(merge(*streams, key=_by_image), key=_by_image):
        *_, latest = same
        yield latest


def _records(folder: JobFolder, run: Iterable[int]) -> Iterator[Record]:
    """Yield the records of a run of shards: they are in the order of the images."""
    for manifest in folder.manifests(run):
        try:
            yield from read_records(folder.storage, manifest.results)
        except FileNotFoundError as err:
            raise StorageError(f"cannot read {folder.storage.place(manifest.results)}: it is not there") from err
