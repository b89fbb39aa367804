"""Where a worker finds a job's model: on its own disk, or fetched from where the job's images are."""

import errno
import hashlib
from pathlib import Path

from trtjob import atomic
from trtjob.config import Settings
from trtjob.errors import ConfigError, ModelError
from trtjob.jobs.roots import check_places
from trtjob.jobs.spec import ModelRef
from trtjob.storage import OnTrouble, open_storage


def model_file(model: ModelRef, settings: Settings, on_trouble: OnTrouble) -> Path:
    """Return a file that is the model: the one named, else a copy of the one at the model's URI.

    Raises ModelError where there is none or it is another model, StorageError where it cannot be fetched.
    """
    named = Path(model.path)
    try:
        # What a job names is not even opened outside of the allowed places; another machine's path may well be there.
        check_places({"model": named}, [*settings.roots, str(settings.home)] if settings.roots else [])
        found = _sha256_of(named)
    except ConfigError as err:
        found, reason = "", str(err)
    except OSError as err:
        found, reason = "", str(err.strerror)
    if found == model.sha256:
        return named
    if not model.uri and found:
        raise ModelError(_is_another(model, model.path, found))
    if not model.uri:
        raise ModelError(
            f"the model '{model.name}' cannot be read: {model.path}: {reason}. Convert it again, then run the job again"
        )
    copy = settings.cache_dir / "models" / f"{model.sha256}.onnx"
    if not copy.is_file() or _sha256_of(copy) != model.sha256:
        _fetch(model, copy, on_trouble)
    return copy


def _fetch(model: ModelRef, copy: Path, on_trouble: OnTrouble) -> None:
    folder, _, name = model.uri.rpartition("/")
    digest = hashlib.sha256()
    copy.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with atomic.replacing(copy, sync=False) as file:
            for line in open_storage(folder, on_trouble=on_trouble).lines(name):
                file.write(line)
                digest.update(line)
            if digest.hexdigest() != model.sha256:
                raise ModelError(_is_another(model, model.uri, digest.hexdigest()))
    except FileNotFoundError as err:
        raise ModelError(f"the model '{model.name}' is not at {model.uri} any more. Submit the job again") from err
    except OSError as err:
        raise ModelError(f"cannot keep the model '{model.name}' in {copy.parent}: {err.strerror}") from err


def _sha256_of(path: Path) -> str:
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no regular file")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_another(model: ModelRef, place: str, found: str) -> str:
    return (
        f"the file {place} is not the model '{model.name}' that the job was submitted with (sha256 {found[:12]}..., "
        f"expected {model.sha256[:12]}...). Submit the job again with the model you want"
    )
