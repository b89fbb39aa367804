"""`--labels no,yes`: names of classes on a command line."""

import hashlib
from pathlib import Path

from trtjob.errors import ConfigError


def file_of_labels(asked: Path | None, models_dir: Path) -> Path | None:
    r"""Return the file that --labels names, or one with the names that it lists with commas between them.

    That one lies in `labels` beside the models, under a name by its content: the same names are the same file.
    Raises ConfigError where a name is missing.

    >>> file_of_labels(Path("no, yes"), Path("home/models")).read_text()
    'no\nyes\n'
    >>> file_of_labels(Path("coco.names"), Path("home/models"))
    PosixPath('coco.names')
    """
    # A comma in a path, or in a file's name, is no list.
    if asked is None or "," not in str(asked) or len(asked.parts) > 1 or asked.exists():
        return asked
    names = [name.strip() for name in str(asked).split(",")]
    if not all(names):
        raise ConfigError(f"--labels {asked}: a name is missing before or after a comma")
    data = "".join(f"{name}\n" for name in names).encode()
    folder = models_dir.with_name("labels")
    file = folder / f"{hashlib.sha256(data).hexdigest()[:16]}.names"
    if not file.exists():
        from trtjob import atomic

        folder.mkdir(parents=True, exist_ok=True)
        with atomic.replacing(file) as open_file:
            open_file.write(data)
    return file
