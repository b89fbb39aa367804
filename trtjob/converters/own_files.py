"""Which files are a model's own: those in its folder and below it, and those of its project.

No name and no link in there has others read, whatever the worker's user may: a model comes from anywhere.

A project is what Darknet's training leaves: the weights in `backup/`, and side by side with it `cfg/` and `data/`.
"""

from pathlib import Path

from trtjob.errors import ConversionError

BACKUP, CFG, DATA = "backup", "cfg", "data"


def project_of(weights: Path) -> Path | None:
    """Return the folder of the project that weights belong to, links followed; None where they lie in none."""
    backup = weights.parent.resolve()
    return backup.parent if backup.name == BACKUP and (backup.parent / CFG).is_dir() else None


def project_folders(weights: Path) -> tuple[Path, ...]:
    """Return what else may be read of the project that weights belong to."""
    root = project_of(weights)
    return () if root is None else (root / CFG, root / DATA)


def is_own(path: Path, *named: Path) -> bool:
    """Tell whether a file lies, links followed, below the folder of a file that somebody has named, or in its project.

    Where that is a link itself, as in caches that keep files by content, its neighbours there are its own, too.
    """
    try:
        real = path.resolve()
        folders = {folder for file in named for folder in (file.parent.resolve(), file.resolve().parent)}
        folders.update(*map(project_folders, named))
    except (OSError, RuntimeError):  # a name that is too long, links in a circle
        return False
    return any(real.is_relative_to(folder) for folder in folders)


def expect_own(path: Path, *named: Path, option: str = "") -> Path:
    """Return a file that was found. Raises ConversionError where it is not the model's own.

    option: how a user can name it.
    """
    if is_own(path, *named):
        return path
    advice = f"If it is meant, name it with {option} FILE" if option else "Copy it into the model's folder"
    raise ConversionError(f"'{path}' leads out of the folder of the model, to a file that nobody has named. {advice}")
