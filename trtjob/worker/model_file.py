"""Where a worker finds a job's model: on its own disk, or fetched from where the job's images are."""

import hashlib
import secrets
from pathlib import Path

from trtjob.config import Settings
from trtjob.errors import ModelError
from trtjob.jobs.models import ModelRef
from trtjob.jobs.storage import OnTrouble, open_storage


def model_file(model: ModelRef, settings: Settings, on_trouble: OnTrouble) -> Path:
    """Return a file that is the model: the one named, else a copy of the one at the model's URI.

    Raises ModelError where there is none or it is another model, StorageError where it cannot be fetched.
    """
    named, copy = Path(model.path), settings.cache_dir / "models" / f"{model.sha256}.onnx"
    for path in (named, copy) if model.uri else (named,):
        if _sha256_of(path) == model.sha256:
            return path
    if not model.uri:
        raise _no_model(model)
    _fetch(model, copy, on_trouble)
    return copy


def _fetch(model: ModelRef, copy: Path, on_trouble: OnTrouble) -> None:
    folder, _, name = model.uri.rpartition("/")
    digest = hashlib.sha256()
    copy.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = copy.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with temporary.open("wb") as file:
            for line in open_storage(folder, on_trouble=on_trouble).lines(name):
                file.write(line)
                digest.update(line)
        if digest.hexdigest() != model.sha256:
            raise ModelError(_is_another(model, model.uri, digest.hexdigest()))
        temporary.replace(copy)
    except FileNotFoundError as err:
        raise ModelError(f"the model '{model.name}' is not at {model.uri} any more. Submit the job again") from err
    except OSError as err:
        raise ModelError(f"cannot keep the model '{model.name}' in {copy.parent}: {err.strerror}") from err
    finally:
        temporary.unlink(missing_ok=True)


def _sha256_of(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _no_model(model: ModelRef) -> ModelError:
    found = _sha256_of(Path(model.path))
    if found is not None:
        return ModelError(_is_another(model, model.path, found))
    try:
        Path(model.path).open("rb").close()
        reason = "it changes while it is read"
    except OSError as err:
        reason = str(err.strerror)
    return ModelError(
        f"the model '{model.name}' cannot be read: {model.path}: {reason}. Convert it again, then run the job again"
    )


def _is_another(model: ModelRef, place: str, found: str) -> str:
    return (
        f"the file {place} is not the model '{model.name}' that the job was submitted with (sha256 {found[:12]}..., "
        f"expected {model.sha256[:12]}...). Submit the job again with the model you want"
    )
