"""Bring to a bucket what workers elsewhere cannot see: the images of a folder, and the model."""

import hashlib
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from trtjob.errors import StorageError
from trtjob.jobs.source_images import chosen_images, open_source
from trtjob.jobs.spec import ModelRef, Part, Source, slug_of
from trtjob.storage import LocalStorage, is_address, open_storage
from trtjob.storage.listing import Entry
from trtjob.storage.selection import Selection

# done, total: images; sent_bytes: what really went over the network, as the rest was there. May raise to stop.
OnUpload = Callable[[int, int, int], None]


def uploaded_source(
    source: Source, keys: list[str], output: str, on_progress: OnUpload, *, allow_local: bool = False
) -> tuple[Source, list[str]]:
    """Upload a source's local images below `output`; what is there already is left. Returns the source there, its keys.

    The same folder of the same machine always goes to the same place, so the same command continues its job.
    allow_local: as of `open_images`. What was chosen here, by time or number, is a list there: earlier uploads may lie
    beside it, and all is new.
    Raises StorageError.
    """
    from trtjob.storage.upload import upload_images

    storage = open_source(source, allow_local=allow_local)
    entries = list(chosen_images(source, keys, storage))
    moved = {}
    for part in source.all_parts:
        if not is_address(part.root):
            origin = hashlib.sha256(f"{socket.gethostname()}:{part.root}".encode()).hexdigest()[:8]
            target = open_storage(f"{output}/uploads/{slug_of(part.root) or 'images'}-{origin}")
            upload_images(LocalStorage(Path(part.root)), target, _entries_of(part, entries), on_progress)
            moved[part.root] = target.uri
    if source.selection.since_s is None and source.selection.most is None:
        return _moved(source, moved), keys
    chosen = [entry.key for entry in entries]
    return _moved(source, moved, kind="list", selection=Selection()), chosen


def _entries_of(part: Part, entries: list[Entry]) -> list[Entry]:
    """Return the images of a part as it names them itself."""
    above = f"{part.name}/" if part.name else ""
    return [replace(entry, key=entry.key[len(above) :]) for entry in entries if entry.key.startswith(above)]


def _moved(source: Source, moved: Mapping[str, str], **changed: Any) -> Source:
    parts = tuple(part.model_copy(update={"root": moved.get(part.root, part.root)}) for part in source.parts)
    return source.model_copy(update={"root": moved.get(source.root, source.root), "parts": parts, **changed})


def uploaded_model(model: ModelRef, output: str) -> ModelRef:
    """Put a model beside the jobs of a bucket, unless it is there, so that every worker can fetch it.

    Raises StorageError.
    """
    storage = open_storage(f"{output}/models")
    key = f"{model.sha256}.onnx"
    if not storage.exists(key):
        try:
            with Path(model.path).open("rb") as file, storage.writing(key) as remote:
                while chunk := file.read(1 << 20):
                    remote.write(chunk)
        except OSError as err:
            raise StorageError(f"cannot read the model {model.path}: {err.strerror}") from err
    return model.model_copy(update={"uri": storage.place(key)})
