"""Names of classes: `--labels no,yes` on a command line, and a list of them."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from trtjob.api.given import as_path, as_several, expect_named
from trtjob.errors import ConfigError


def file_of_labels(asked: Path | str | Sequence[str] | None, models_dir: Path) -> Path | None:
    r"""Return the file that is named, or one with the names that are listed, or that text lists with commas.

    That one lies in `labels` beside the models, under a name by its content: the same names are the same file.
    Raises ConfigError where a name is missing, nothing is named, or something else is given.

    >>> file_of_labels("no, yes", Path("home/models")).read_text()
    'no\nyes\n'
    >>> file_of_labels("coco.names", Path("home/models"))
    PosixPath('coco.names')
    """
    if asked is None:
        return None
    expect_named("--labels", asked, "a file or names")
    if isinstance(asked, str | Path):
        path = as_path("--labels", asked)
        # A comma in a path, or in a file's name, is no list.
        if "," not in str(asked) or len(path.parts) > 1 or path.exists():
            return path
        names = [name.strip() for name in str(asked).split(",")]
    elif not (names := list(map(str, as_several("--labels", asked, "a file or names")))):
        raise ConfigError("--labels is an empty list. Name the classes, or leave it out")
    if not all(names):
        raise ConfigError(f"--labels {asked}: a name is missing before or after a comma")
    data = "".join(f"{name}\n" for name in names).encode()
    folder = models_dir.with_name("labels")
    file = folder / f"{hashlib.sha256(data).hexdigest()[:16]}.names"
    if not file.exists():
        from trtjob import atomic

        folder.mkdir(parents=True, exist_ok=True)
        atomic.write(file, data)
    return file
