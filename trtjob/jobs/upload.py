"""Bring to a bucket what workers elsewhere cannot see: the images of a folder, and the model."""

import hashlib
import socket
from collections.abc import Callable, Iterable
from pathlib import Path

from trtjob.errors import StorageError
from trtjob.jobs.spec import ModelRef, Source, slug_of
from trtjob.storage import LocalStorage, open_storage
from trtjob.storage.listing import Entry

# done, total: images; sent_bytes: what really went over the network, as the rest was there. May raise to stop.
OnUpload = Callable[[int, int, int], None]


def uploaded_source(source: Source, keys: Iterable[str], output: str, on_progress: OnUpload) -> Source:
    """Upload a local source's images below `output` and return the source there; what is there already is left.

    The same folder of the same machine always goes to the same place, so the same command continues its job.
    Raises StorageError.
    """
    from trtjob.storage.upload import upload_images

    local = LocalStorage(Path(source.root))
    origin = hashlib.sha256(f"{socket.gethostname()}:{source.root}".encode()).hexdigest()[:8]
    target = open_storage(f"{output}/uploads/{slug_of(source.root) or 'images'}-{origin}")
    entries: list[Entry] = list(local.images() if source.kind == "folder" else map(local.entry, keys))
    upload_images(local, target, entries, on_progress)
    return source.model_copy(update={"root": target.uri})


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
