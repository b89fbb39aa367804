"""Bring to a bucket what workers elsewhere cannot see: the images of a folder, and the model."""

import hashlib
import socket
from collections.abc import Callable
from pathlib import Path

from trtjob.errors import StorageError
from trtjob.jobs.source_images import chosen_images
from trtjob.jobs.spec import ModelRef, Source, slug_of
from trtjob.storage import LocalStorage, open_storage

# done, total: images; sent_bytes: what really went over the network, as the rest was there. May raise to stop.
OnUpload = Callable[[int, int, int], None]


def uploaded_source(source: Source, keys: list[str], output: str, on_progress: OnUpload) -> tuple[Source, list[str]]:
    """Upload a local source's images below `output`; what is there already is left. Returns the source there, its keys.

    The same folder of the same machine always goes to the same place, so the same command continues its job.
    What was chosen here, by time or number, is a list there: earlier uploads may lie beside it, and all is new.
    Raises StorageError.
    """
    from trtjob.storage.upload import upload_images

    local = LocalStorage(Path(source.root))
    origin = hashlib.sha256(f"{socket.gethostname()}:{source.root}".encode()).hexdigest()[:8]
    target = open_storage(f"{output}/uploads/{slug_of(source.root) or 'images'}-{origin}")
    entries = list(chosen_images(source, keys, local))
    upload_images(local, target, entries, on_progress)
    if source.selection.since_s is None and source.selection.most is None:
        return source.model_copy(update={"root": target.uri}), keys
    return Source(kind="list", root=target.uri), [entry.key for entry in entries]


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
