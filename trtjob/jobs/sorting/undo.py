"""Take a sort back: each file to where it was, and copies away."""

import os
from contextlib import suppress
from pathlib import Path

from trtjob.jobs.sorting import files
from trtjob.jobs.sorting.sort import How
from trtjob.jobs.sorting.undo_list import Placed, list_path, open_list
from trtjob.storage import LocalStorage
from trtjob.storage.local import place_error


def undo_sort(into: Path, job_id: str) -> tuple[int, list[tuple[str, str]]]:
    """Take back what was sorted of a job into a folder. What somebody has changed since is left, and so is its line.

    Returns how many files were taken back, and those that were left with why. May be interrupted and called again.
    Raises ConfigError where there is no list, StorageError where a place fails.
    """
    root = into.resolve()
    left: list[Placed] = []
    reasons: list[tuple[str, str]] = []
    try:
        with open_list(root, job_id, None) as undo_list:
            undo_list.remove_unfinished()
            how = How(undo_list.heading.how)
            placed_last = {placed.file: placed for placed in undo_list.placed}
            for placed in reversed(placed_last.values()):
                try:
                    why = _undo(root, placed, how)
                except OSError as err:
                    why = err.strerror or str(err)
                if why:
                    left.append(placed)
                    reasons.append((placed.file, why))
            undo_list.keep(left[::-1])
            return len(placed_last) - len(left), reasons
    except OSError as err:
        raise place_error(err, list_path(root, job_id)) from err


def _undo(root: Path, placed: Placed, how: How) -> str:
    """Take one file back. Returns why it is left, empty where it is not."""
    target = LocalStorage(root).path(placed.target)
    if not target.parent.resolve().is_relative_to(root):
        return f"{target.parent} is a link that leads out of {root}"
    if placed.size and files.is_reserved(target):
        files.release(target)
        return "" if how is not How.MOVE or os.path.lexists(placed.source) else f"it is no longer at {target}"
    source = Path(placed.source) if placed.source else None
    if how is How.MOVE and source:
        if placed.size and os.path.lexists(source) and files.is_reserved(source):  # an undo was interrupted there
            files.release(source)
        why = _move_back(source, target)
    else:
        why = _remove(source, target, placed, how)
    if not why:
        _remove_empty(target.parent, root)
    return why


def _move_back(source: Path, target: Path) -> str:
    if not os.path.lexists(target):
        return "" if os.path.lexists(source) else f"it is no longer at {target}"
    if os.path.lexists(source):
        if not files.is_same(source, target):
            return f"another file lies at its old place, {source}"
        target.unlink()
        return ""
    source.parent.mkdir(parents=True, exist_ok=True)
    files.move(target, source)
    return ""


def _remove(source: Path | None, target: Path, placed: Placed, how: How) -> str:
    if not os.path.lexists(target):
        return ""
    if how is How.LINK and source:
        if not source.exists():
            return f"{target} is all that is left of it"
        if not source.samefile(target):
            return f"{target} is another file by now"
    elif not files.is_unchanged(target, placed.size, placed.modified_s):
        return f"{target} was changed"
    target.unlink()
    return ""


def _remove_empty(folder: Path, root: Path) -> None:
    """Remove the folders below the root that nothing is in any more."""
    with suppress(OSError):
        while folder != root:
            folder.rmdir()
            folder = folder.parent
