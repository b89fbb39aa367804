"""The records of a job, from its shards, in the order of `results.jsonl`."""

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import suppress
from heapq import merge
from itertools import groupby, zip_longest
from operator import attrgetter

from trtjob.errors import StorageError
from trtjob.jobs.folder import JobFolder, PlanEpoch
from trtjob.jobs.plan import checkpoint_key, planned_entries, read_shard
from trtjob.jobs.records import Record, read_records
from trtjob.jobs.spec import JobSpec

_by_image = attrgetter("image")


def merged_records(folder: JobFolder, epochs: list[PlanEpoch] | None = None) -> Iterator[Record]:
    """Yield the record of every planned image once, sorted by `image`; of several, that of the last epoch.

    epochs: the rounds of planning, all unless given.
    Holds one record and one shard's plan of each epoch at a time. An image that an update no longer found in the source
    keeps its record. Raises StorageError where a shard is not committed, where records and plan are not of the same
    images, or where the plan has fewer than were listed: these comparisons are what the receipt stands on.

    >>> [record.image for record in merged_records(JobFolder.at("results/photos-1a2b3c4d"))]
    ['a.jpg', 'b.jpg']
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


def records_so_far(folder: JobFolder, spec: JobSpec) -> Iterator[Record]:
    """Yield the record of every image that is done once, sorted by `image`, of a job that is not complete.

    Those count too that are in the checkpoint of a shard that was left. Raises StorageError where a shard's plan or
    records are not there.
    """
    epochs, newest = folder.epochs(), folder.newest_round()
    runs: list[tuple[int, Sequence[int]]] = [(epoch.epoch, run) for epoch in epochs for run in epoch.runs]
    if newest is not None and newest.epoch not in {epoch.epoch for epoch in epochs}:
        runs += [(newest.epoch, run) for run in _runs_of(folder, newest.epoch)]
    committed = set(folder.committed_shards())
    return _latest_of(_done(folder, spec, epoch, run, committed) for epoch, run in runs)


def _done(
    folder: JobFolder, spec: JobSpec, epoch: int, run: Iterable[int], committed: Container[int]
) -> Iterator[Record]:
    """Yield what is done of a run of shards."""
    for shard in run:
        if shard in committed:
            yield from _records(folder, [shard])
        else:
            entries = read_shard(folder, epoch, shard)
            with suppress(FileNotFoundError):
                checkpoint = read_records(folder.storage, checkpoint_key(spec, shard, entries))
                done = {record.image: record for record in checkpoint}
                yield from (done[entry.key] for entry in entries if entry.key in done)


def _runs_of(folder: JobFolder, epoch: int) -> list[list[int]]:
    """Return the shards of a round that is still planned, in runs: its end would say where its keys began anew."""
    last_key = ""
    runs: list[list[int]] = []
    for shard in folder.slots(epoch):
        entries = read_shard(folder, epoch, shard)
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
    return _latest_of(_records(folder, run) for epoch in epochs for run in epoch.runs)


def _latest_of(streams: Iterable[Iterator[Record]]) -> Iterator[Record]:
    # heapq.merge keeps the order of its inputs among equal images, so the last of a group is the latest.
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
