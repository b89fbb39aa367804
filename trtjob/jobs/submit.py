"""Hand a job in, continue it, try its failures again, cancel it."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from trtjob.errors import ConfigError, JobError
from trtjob.jobs.folder import JOB, RECEIPT, JobFolder
from trtjob.jobs.listing import IMAGE_SUFFIXES, Listing
from trtjob.jobs.models import JobSpec, Source
from trtjob.jobs.plan import write_source_list
from trtjob.jobs.queue import WorkQueue
from trtjob.jobs.reconcile import reconcile_job
from trtjob.jobs.states import ACTIVE, FINISHED, JobState
from trtjob.jobs.store import JobStore
from trtjob.jobs.units import PLAN

Outcome = Literal["queued", "running", "resumed", "updating"]


def source_from(paths: Path | Iterable[str]) -> tuple[Source, list[str]]:
    """Return the source for a folder, a file, or the lines of a list, and the keys of the latter two, sorted.

    Two lines that name the same file in two ways are one image. Raises ConfigError where a source does not exist or
    holds no image, and where its path is no text.
    """
    if isinstance(paths, Path):
        if paths.is_dir():
            return _folder_source(paths), []
        if not paths.exists():
            raise ConfigError(f"no such folder or file: '{paths}'")
        paths = [str(paths)]
    files = list(map(_file, filter(str.strip, paths)))
    if not files:
        raise ConfigError("the list names no image: it has one path on each line")
    parents = [file.parent.parts for file in files]
    depth = next((i for i, level in enumerate(zip(*parents, strict=False)) if len(set(level)) > 1), None)
    root = Path(*parents[0][: min(map(len, parents)) if depth is None else depth])
    _check_text(root, "Rename the folder")
    return Source(kind="list", root=str(root)), sorted({str(file.relative_to(root)) for file in files})


def _file(line: str) -> Path:
    """Return the absolute path that a line of a list names, without `..`."""
    if "\0" in line:
        raise ConfigError(f"the list has a zero byte in {line[:80]!r}: it has one path on each line (find -print)")
    # absolute(), not resolve(): a link to an image keeps the name under which the user knows it.
    path = _at_home(line).absolute()
    return path.parent.resolve() / path.name if ".." in path.parts else path


def _at_home(path: str) -> Path:
    """Read `~/` as a shell does; `~name.jpg` is a file, not a user."""
    return Path.home() / path[2:] if path.startswith("~/") else Path(path)


def _check_text(folder: Path, hint: str) -> None:
    """Refuse a folder that JSON cannot name; below it, every name goes."""
    try:
        str(folder).encode()
    except UnicodeEncodeError as err:
        raise ConfigError(f"the name of the folder {str(folder)!r} is not valid UTF-8. {hint}") from err


def _folder_source(folder: Path) -> Source:
    root = folder.resolve()
    _check_text(root, "Rename the folder")
    try:
        next(root.iterdir(), None)
    except OSError as err:
        raise ConfigError(f"cannot list the folder '{folder}': {err.strerror}") from err
    if next(iter(Listing(root)), None) is None:
        suffixes = " ".join(sorted(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES))
        raise ConfigError(f"no image in '{folder}' or below it. Files with these endings are images: {suffixes}")
    return Source(kind="folder", root=str(root))


def check_output(output: Path, source: Source) -> Path:
    """Return the absolute output folder. Raises ConfigError where it lies in the source or cannot be a folder."""
    resolved = _at_home(str(output)).resolve()
    _check_text(resolved, "Choose another with --output")
    if source.kind == "folder" and resolved.is_relative_to(source.root):
        raise ConfigError(
            f"the output folder '{output}' lies in the source '{source.root}', so outputs would become inputs. "
            "Choose a folder outside it with --output"
        )
    if resolved.exists() and not resolved.is_dir():
        raise ConfigError(f"the output '{output}' is a file, not a folder. Choose another with --output")
    return resolved


def submit(store: JobStore, queue: WorkQueue, spec: JobSpec, keys: Iterable[str] = ()) -> tuple[JobSpec, Outcome]:
    """Hand a job in; the same job again continues it with what is missing, new or changed.

    keys: the images of a `list` source. Returns the specification in force (that of the first submission) and what
    was done.
    Raises StorageError where the output cannot be written, JobError where the folder is another version's.
    """
    folder = JobFolder.of(spec)
    if folder.storage.create(JOB, spec.model_dump_json(indent=1).encode()):
        if spec.source.kind == "list":
            write_source_list(folder, keys)
        store.forget(spec.job_id)  # known from a folder that has been removed since
    else:
        spec = folder.spec()
    if store.create(spec):
        return spec, _enter(store, queue, folder, spec)
    state = store.state(spec.job_id)
    if state in ACTIVE:
        reconcile_job(store, queue, spec.job_id)
        return spec, "running"
    return spec, _continue(store, queue, spec, state)


def _enter(store: JobStore, queue: WorkQueue, folder: JobFolder, spec: JobSpec) -> Outcome:
    """Start a job that the store did not know: a new one, or one of an earlier server, found in its folder."""
    epochs = folder.epochs()
    if folder.storage.exists(RECEIPT):
        store.update(spec.job_id, state=JobState.DONE.value, epoch=epochs[-1].epoch)
        return _continue(store, queue, spec, JobState.DONE)
    if epochs:
        store.update(spec.job_id, epoch=epochs[-1].epoch, reason=epochs[-1].reason)
    queue.put(spec.job_id, [PLAN])
    return "resumed" if epochs else "queued"


def _continue(store: JobStore, queue: WorkQueue, spec: JobSpec, state: JobState) -> Outcome:
    if state in FINISHED:
        _next_epoch(store, queue, spec.job_id, "update")
        return "updating"
    store.move(spec.job_id, JobState.QUEUED, message="", finished_at="")
    queue.put(spec.job_id, [PLAN])
    return "resumed"


def _next_epoch(store: JobStore, queue: WorkQueue, job_id: str, reason: str) -> None:
    epoch = store.view(job_id).epoch + 1
    fields: dict[str, str | float] = {"epoch": epoch, "reason": reason, "planned": 0, "message": "", "finished_at": ""}
    if store.move(job_id, JobState.QUEUED, **fields):
        queue.put(job_id, [PLAN])


def retry(store: JobStore, queue: WorkQueue, job_id: str) -> int:
    """Run a finished job's failed images again. Returns their number; raises JobError where it has not finished."""
    view = store.view(job_id)
    if view.state not in FINISHED:
        hint = "It is under way." if view.state in ACTIVE else "Continue it with the command that submitted it."
        raise JobError(f"job '{job_id}' is {view.state}: its failed images are not known yet. {hint}", job_id=job_id)
    if view.failed:
        _next_epoch(store, queue, job_id, "retry")
    return view.failed


def cancel(store: JobStore, job_id: str) -> bool:
    """Stop a job at the next batch edge; what is committed stays. Returns False where it had ended before."""
    store.state(job_id)
    return store.move(job_id, JobState.CANCELLED, message="cancelled", finished_at=time.time())
