"""Divide a job into shards: files of at most `shard_size` entries, in the order of the keys.

Planning can be stopped anywhere: run again, it plans what is not in the plan yet. A round's files are written one after
another, each where nothing is. So a planner that slept, and another that took over, write one plan between them: who
finds a file of the other's reads it, and goes on behind it. Redis sees only numbers.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import merge
from itertools import count, groupby, takewhile
from operator import attrgetter
from typing import Any, TypedDict

from trtjob.errors import FailureKind, StorageError
from trtjob.jobs.folder import RESULTS, SOURCE_LIST, JobFolder, PlanEpoch, plan_key
from trtjob.jobs.frame_listing import FramesOf, frame_listing
from trtjob.jobs.pages import Pages, file_of
from trtjob.jobs.records import Record, json_line, parse_line, read_records
from trtjob.jobs.source_images import Named, chosen_images, matching_images
from trtjob.jobs.spec import JobSpec
from trtjob.storage.chosen import Known
from trtjob.storage.listing import Entry, Frame, Images
from trtjob.storage.prefetch import prefetch_map
from trtjob.storage.protocol import ImageStorage

# Failures to get at an image, which say nothing of it: the same command tries these again.
_UNREACHED = frozenset({FailureKind.MISSING, FailureKind.READ})

_by_key = attrgetter("key")


def write_shard(folder: JobFolder, epoch: int, shard: int, entries: Iterable[Entry]) -> bool:
    """Write a shard's entries unless something is written there. Returns whether this call did."""
    return folder.storage.create(plan_key(epoch, shard), b"".join(map(_line, entries)))


def _line(entry: Entry) -> bytes:
    fields: dict[str, Any] = {"key": entry.key, "size": entry.size_bytes, "etag": entry.etag}
    if entry.frame is not None:
        fields["frame"] = entry.frame
    return json_line(fields)


def read_shard(folder: JobFolder, epoch: int, shard: int) -> list[Entry]:
    """Return the entries of a round's shard. Raises StorageError where the file is missing or damaged."""
    key = plan_key(epoch, shard)
    try:
        return _entries(folder, key, folder.storage.read(key))
    except FileNotFoundError as err:
        raise StorageError(f"the plan {folder.storage.place(key)} is missing or damaged: it is not there") from err


def checkpoint_key(spec: JobSpec, shard: int, entries: list[Entry]) -> str:
    """Return where a shard's checkpoint lies: of another life of the job, or another plan, it is another's."""
    identity = [repr(spec.created_at), *(f"{entry.key}\0{entry.size_bytes}\0{entry.etag}" for entry in entries)]
    digest = hashlib.sha256("\n".join(identity).encode(errors="surrogateescape")).hexdigest()
    return f"shards/{shard:05d}.part-{digest[:16]}.jsonl"


def _entries(folder: JobFolder, key: str, data: bytes) -> list[Entry]:
    place = folder.storage.place(key)
    try:
        rows = [parse_line(line) for line in data.splitlines()]
        entries = [
            Entry(str(row["key"]), int(row["size"]), str(row["etag"]), frame=_frame(row.get("frame"))) for row in rows
        ]
    except (ValueError, KeyError, TypeError) as err:
        raise StorageError(f"the plan {place} is missing or damaged: {err}") from err
    if not entries:
        raise StorageError(f"the plan {place} is missing or damaged: it is empty")
    return entries


def _frame(numbers: Any) -> Frame | None:
    return None if numbers is None else Frame(*map(int, numbers))


def write_source_list(folder: JobFolder, keys: Iterable[str]) -> None:
    """Write the keys that a source names into the job's folder."""
    folder.storage.write(SOURCE_LIST, source_list(keys))


def source_list(keys: Iterable[str]) -> bytes:
    """Return the document that holds the keys that a source names, a line for each."""
    return b"".join(json_line({"key": key}) for key in keys)


def _listed(folder: JobFolder) -> Iterator[str]:
    try:
        for line in folder.storage.lines(SOURCE_LIST):
            yield str(parse_line(line)["key"])
    except (FileNotFoundError, ValueError, KeyError, TypeError) as err:
        raise StorageError(f"the list {folder.storage.place(SOURCE_LIST)} is missing or damaged: {err}") from err


def plan_epoch(
    folder: JobFolder,
    spec: JobSpec,
    source: ImageStorage,
    *,
    epoch: int,
    reason: str,
    on_shards: Callable[[list[int], int], None],
    before_write: Callable[[], None] = lambda: None,
    on_wait: Callable[[str], None] = lambda _what: None,
) -> PlanEpoch:
    """Write the shards of one round of planning, and its end.

    source: where the images are.
    on_shards: called with the numbers of shards just written, or found written, and the images in them;
    before_write: may raise to stop, where another plans now, say; on_wait: told what is waited for, and may do so too.
    """
    done = folder.epochs()
    earlier = [past for past in done if past.epoch < epoch]
    for complete in done[len(earlier) :][:1]:
        on_shards(list(complete.numbers), complete.images)
        return complete
    draft = _Draft(epoch, reason, sum(past.shards for past in earlier))
    with frame_listing(source, spec.options.frames, on_wait) as frames_of:
        while (plan := _found(folder, draft, on_shards)) is None:
            images, entries = _wanted(folder, spec, source, earlier, draft, frames_of)
            for chunk in _chunks(entries, spec.options.shard_size):
                before_write()
                if not write_shard(folder, epoch, draft.stop, chunk):
                    break
                draft.add(chunk)
                on_shards([draft.stop - 1], len(chunk))
            else:
                listed = None if reason == "retry" else images.count
                plan = draft.plan(listed=listed, ignored=dict(sorted(images.ignored.items())))
                before_write()
                if folder.commit_epoch(plan):
                    return plan
            draft.refused = draft.stop
    return plan


@dataclass(slots=True)
class _Draft:
    """A round of planning while it grows; stop: the number of the next shard; refused: one that is written already."""

    epoch: int
    reason: str
    first_shard: int
    shards: int = 0
    images: int = 0
    restarts: list[int] = field(default_factory=list)
    last_key: str = ""
    refused: int = -1

    @property
    def stop(self) -> int:
        return self.first_shard + self.shards

    def add(self, entries: Sequence[Entry]) -> None:
        if self.shards and entries[0].key <= self.last_key:
            self.restarts.append(self.stop)
        self.shards += 1
        self.images += len(entries)
        self.last_key = entries[-1].key

    def plan(self, **ending: Any) -> PlanEpoch:
        names = ("epoch", "reason", "first_shard", "shards", "images", "restarts")
        return PlanEpoch.model_validate({name: getattr(self, name) for name in names} | ending)


def _found(folder: JobFolder, draft: _Draft, on_shards: Callable[[list[int], int], None]) -> PlanEpoch | None:
    """Add to a draft what is written behind it, by whomever. Returns the round where its end is there."""
    start, images, slots = draft.stop, draft.images, set(folder.slots(draft.epoch))
    keys = (plan_key(draft.epoch, shard) for shard in takewhile(slots.__contains__, count(start)))
    plan = None
    for key, data in prefetch_map(lambda key: (key, folder.storage.read(key)), keys):
        plan = folder.end_in(key, data)
        if plan is None:
            draft.add(_entries(folder, key, data))
    if draft.stop > start:
        on_shards(list(range(start, draft.stop)), draft.images - images)
    elif plan is None and draft.refused == start:
        place = folder.storage.place(plan_key(draft.epoch, start))
        raise StorageError(f"the plan {place} can be neither written nor read: something of that name is there")
    return plan


@dataclass(slots=True)
class _Counted:
    """Images; count: how many there were, when the iteration has ended."""

    images: Images
    count: int = 0

    @property
    def ignored(self) -> Counter[str]:
        return self.images.ignored

    def __iter__(self) -> Iterator[Entry]:
        for entry in self.images:
            self.count += 1
            yield entry


def _wanted(
    folder: JobFolder,
    spec: JobSpec,
    source: ImageStorage,
    earlier: list[PlanEpoch],
    draft: _Draft,
    frames_of: FramesOf | None,
) -> tuple[_Counted, Iterator[Entry]]:
    """Return the images that a round looks at, and those of them that it has to plan beyond its draft."""
    in_draft = _lookup(entry.key for entry in planned_entries(folder, [draft.plan()]))
    if draft.reason == "retry":
        failed = (key for key in _failed(folder, frozenset(FailureKind)) if not in_draft(key))
        frames = _failed_frames(folder, earlier) if spec.options.frames is not None else {}
        images = _Counted(Named(source, failed, has_pages=spec.options.pages == "all", frames=frames))
        return images, iter(images)
    images = _Counted(source_images(folder, spec, source, earlier, frames_of))
    has_records = bool(earlier) and folder.storage.exists(RESULTS)
    again = _lookup(_failed(folder, _UNREACHED) if has_records else ())
    changed = _changed(folder, [*earlier, draft.plan()], images, lambda key: again(key) and not in_draft(key))
    return images, changed


def source_images(
    folder: JobFolder,
    spec: JobSpec,
    source: ImageStorage,
    earlier: Sequence[PlanEpoch] = (),
    frames_of: FramesOf | None = None,
) -> Images:
    """Return the images that a job is about as they are now, sorted by key.

    earlier: the rounds before: where some files were chosen of all, it is those that the first one has chosen;
    frames_of: as of `Pages`.
    """
    has_pages, most = spec.options.pages == "all", spec.source.selection.most
    planned = planned_entries(folder, earlier) if most is not None else ()
    known = {file_of(entry).key if has_pages or entry.frame else entry.key for entry in planned}
    images: Images
    if most is None or len(known) < most:
        images = chosen_images(spec.source, _listed(folder), source)
    else:
        images = Known(matching_images(spec.source, _listed(folder), source), known)
    if not has_pages and frames_of is None:
        return images
    return Pages(images, source, has_pages=has_pages, frames_of=frames_of)


def _lookup(keys: Iterable[str]) -> Callable[[str], bool]:
    """Return what tells whether a key is among sorted ones; it must be asked in their order."""
    left = iter(keys)
    known = next(left, None)

    def holds(key: str) -> bool:
        nonlocal known
        while known is not None and known < key:
            known = next(left, None)
        return known == key

    return holds


def planned_entries(
    folder: JobFolder, epochs: Iterable[PlanEpoch], counts: Counter[int] | None = None
) -> Iterator[Entry]:
    """Yield every planned image once, sorted by key, as the last epoch that has it lists it.

    counts: gets the number of entries in each epoch's files.
    """

    def entries(epoch: PlanEpoch, run: range) -> Iterator[Entry]:
        for shard in run:
            found = read_shard(folder, epoch.epoch, shard)
            if counts is not None:
                counts[epoch.epoch] += len(found)
            yield from found

    # heapq.merge keeps the order of its inputs among equal keys, so the last of a group is the latest.
    runs = (entries(epoch, run) for epoch in epochs for run in epoch.runs)
    for _, same in groupby(merge(*runs, key=_by_key), key=_by_key):
        *_, latest = same
        yield latest


class Committed(TypedDict):
    """What the committed shards of a folder hold, as `JobStore.sync` takes it."""

    ok: int
    failed: int
    kinds: Counter[str]  # the failed, by kind
    committed: list[int]


def committed_counts(folder: JobFolder, first_shard: int) -> Committed:
    """Count what the shards from `first_shard` on have committed."""
    counts = Committed(ok=0, failed=0, kinds=Counter(), committed=[])
    for manifest in prefetch_map(
        folder.manifest, (shard for shard in folder.committed_shards() if shard >= first_shard)
    ):
        if manifest is not None:
            counts["ok"] += manifest.ok
            counts["failed"] += manifest.failed
            counts["kinds"] += Counter(manifest.failures)
            counts["committed"].append(manifest.shard)
    return counts


def kept_counts(folder: JobFolder, epoch: PlanEpoch) -> tuple[int, Counter[str]]:
    """Return how many good images, and failed ones by kind, an epoch leaves as the earlier ones made them."""
    is_redone = _lookup(entry.key for entry in planned_entries(folder, [epoch]))
    ok, kinds = 0, Counter[str]()
    for record in _last_records(folder):
        if is_redone(record.image):
            continue
        if record.error is None:
            ok += 1
        else:
            kinds[record.error.kind] += 1
    return ok, kinds


def _changed(
    folder: JobFolder, epochs: list[PlanEpoch], listing: Iterable[Entry], is_unreached: Callable[[str], bool]
) -> Iterator[Entry]:
    """Yield the entries of the source that are new, not as they were planned, or there now and were not reached."""
    planned = planned_entries(folder, epochs)
    known = next(planned, None)
    for entry in listing:
        while known is not None and known.key < entry.key:
            known = next(planned, None)
        is_planned = known is not None and known.key == entry.key and known.etag == entry.etag
        if not is_planned or (is_unreached(entry.key) and entry.etag):
            yield entry


def _failed(folder: JobFolder, kinds: Container[FailureKind]) -> Iterator[str]:
    """Yield the images whose last record is an error of one of these kinds."""
    return (r.image for r in _last_records(folder) if r.error is not None and r.error.kind in kinds)


def _last_records(folder: JobFolder) -> Iterator[Record]:
    try:
        yield from read_records(folder.storage, RESULTS)
    except FileNotFoundError as err:
        raise StorageError(
            f"{folder.storage.place(RESULTS)} is not there, and it says how the images fared. Put it back, or remove "
            "the folder and run the job again"
        ) from err


def _failed_frames(folder: JobFolder, earlier: Iterable[PlanEpoch]) -> dict[str, Frame]:
    """Return which frames of videos those are that failed, by their keys."""
    is_failed = _lookup(_failed(folder, frozenset(FailureKind)))
    planned = planned_entries(folder, earlier)
    return {entry.key: entry.frame for entry in planned if entry.frame is not None and is_failed(entry.key)}


def _chunks(entries: Iterable[Entry], size: int) -> Iterator[Sequence[Entry]]:
    """Yield so many entries at a time, or fewer where frames that are decoded one after another stay together."""
    chunk: list[Entry] = []
    run_at = 0  # where the run at hand begins in the chunk
    for entry in entries:
        if not chunk or entry.run is None or entry.run != chunk[-1].run:
            run_at = len(chunk)
        chunk.append(entry)
        if len(chunk) > size:
            cut = run_at or size
            yield chunk[:cut]
            del chunk[:cut]
            run_at = 0
    if chunk:
        yield chunk
