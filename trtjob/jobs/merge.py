"""All records of a job, from its shards, in the order of `results.jsonl`."""

from collections.abc import Iterator
from heapq import merge
from itertools import groupby, zip_longest
from operator import attrgetter

from trtjob.errors import StorageError
from trtjob.jobs.folder import JobFolder, PlanEpoch
from trtjob.jobs.plan import planned_entries
from trtjob.jobs.records import Record, read_records

_by_image = attrgetter("image")


def merged_records(folder: JobFolder) -> Iterator[Record]:
    """Yield the record of every planned image once, sorted by `image`; of several, that of the last epoch.

    Holds one record and one shard's plan of each epoch at a time. An image that an update no longer found in the source
    keeps its record. Raises StorageError where a shard is not committed, or where records and plan are not of the same
    images: this comparison, image by image, is what the receipt stands on.
    """
    epochs = folder.epochs()
    planned = (entry.key for entry in planned_entries(folder, epochs))
    for key, record in zip_longest(planned, _latest(folder, epochs)):
        if record is None or key != record.image:
            wanted = "no more images" if key is None else repr(key)
            found = "no record" if record is None else f"a record of {record.image!r}"
            raise StorageError(
                f"{folder.uri}: the plan lists {wanted}, but the shards hold {found}: a file there is damaged. "
                "Remove the folder and run the job again"
            )
        yield record


def _latest(folder: JobFolder, epochs: list[PlanEpoch]) -> Iterator[Record]:
    # heapq.merge keeps the order of its inputs among equal images, so the last of a group is the latest.
    streams = (_records(folder, epoch) for epoch in epochs)
    for _, same in groupby(merge(*streams, key=_by_image), key=_by_image):
        *_, latest = same
        yield latest


def _records(folder: JobFolder, epoch: PlanEpoch) -> Iterator[Record]:
    """Yield an epoch's records: its shards are in the order of the images."""
    for manifest in folder.manifests(epoch.numbers):
        try:
            yield from read_records(folder.storage, manifest.results)
        except FileNotFoundError as err:
            raise StorageError(f"cannot read {folder.storage.place(manifest.results)}: it is not there") from err
