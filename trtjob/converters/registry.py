"""The models of this machine: known by the sha256 of their ONNX file, some called by names.

models/
  files/<sha256>.onnx, .json      a model, and what is known of it without opening it
  names/<name>.json               a name: which model it stands for
  conversions/<key>.json          what a conversion gave, so that the same files are converted once
"""

import difflib
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from trtjob import atomic
from trtjob.converters.output import write_atomically
from trtjob.documents import Document, problems
from trtjob.engines.spec import ModelSpec, load_spec
from trtjob.errors import ConversionError, ModelError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,99}")


class Facts(Document):
    """What was seen at a conversion; unlike the spec it is no part of the model.

    outputs: the shape of each, by name; seconds: that it took; cpu_ms, reference_cpu_ms: CPU time for one image of the
    model and of its reference; notes: what was found or assumed, warnings: what may be wrong, a sentence each.
    """

    layers: int
    parameters: int
    outputs: dict[str, tuple[int | str, ...]] = Field(default_factory=dict)
    seconds: float
    cpu_ms: float | None = None
    reference_cpu_ms: float | None = None
    reference_size_bytes: int | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A model under a name, or called after its file; `created_at`: seconds since the epoch."""

    name: str
    sha256: str
    path: Path
    spec: ModelSpec
    facts: Facts | None  # of a model that was converted here
    size_bytes: int
    created_at: float

    def document(self) -> dict[str, Any]:
        """Return everything that is known of the model, as JSON has it."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "path": str(self.path),
            "size_bytes": self.size_bytes,
            "created_at": self.created_at,
            "spec": self.spec.model_dump(mode="json"),
            "facts": None if self.facts is None else self.facts.model_dump(mode="json"),
        }


class _Entry(Document):
    spec: ModelSpec
    facts: Facts | None = None


class _Name(Document):
    sha256: str
    created_at: float


class ModelRegistry:
    """The models below one folder. Safe to use from several processes: every file appears whole.

    >>> registry = ModelRegistry(Path("models"))
    >>> [model.name for model in registry.list()]
    []
    >>> registry.get("yolov4")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    trtjob.errors.ModelError: no model 'yolov4'. List them with `trtjob models`, or name a model's file ...
    """

    def __init__(self, models_dir: Path) -> None:
        self.folder = models_dir
        self._files, self._names, self._conversions = (models_dir / n for n in ("files", "names", "conversions"))

    def list(self) -> "list[RegisteredModel]":
        """Return the models by name, without those that are damaged."""
        return [model for model in self._each() if isinstance(model, RegisteredModel)]

    def damaged(self) -> tuple[ModelError, ...]:
        """Return what is wrong with each damaged model, by name."""
        return tuple(error for error in self._each() if isinstance(error, ModelError))

    def _each(self) -> Iterator[RegisteredModel | ModelError]:
        for path in sorted(self._names.glob("*.json")):
            try:
                yield self._load(path.stem)
            except ModelError as err:
                yield err

    def get(self, name: str) -> RegisteredModel:
        """Return a model by its name. Raises ModelError where there is none, with names that are near."""
        self._expect(name)
        return self._load(name)

    def keep(self, model: Path) -> str:
        """Copy an ONNX file of ours into the registry. Returns its sha256; it gets no name.

        Raises ModelError, ConversionError.
        """
        sha256 = file_sha256(model)
        if not self._has(sha256):
            spec = load_spec(model)
            self._prepare()
            write_atomically(self._files / f"{sha256}.onnx", model.read_bytes())
            self._write(sha256, _Entry(spec=spec))
        return sha256

    def add(self, name: str, model: Path, *, replace: bool = False) -> RegisteredModel:
        """Copy an ONNX file of ours into the registry, under a name. Raises what `keep` and `give_name` raise."""
        return self.give_name(valid_name(name), self.keep(model), replace=replace)

    def by_sha256(self, sha256: str, called: str) -> RegisteredModel:
        """Return a model that is here by its content, whichever names it has. Raises ModelError where it is damaged."""
        return self._loaded(called, sha256, None)

    def remove(self, name: str) -> str | None:
        """Forget a name, and the model where no other name stands for it; return the sha256 of a model that is gone.

        Raises ModelError where there is no such name.
        """
        self._expect(name)
        sha256 = self._stands_for(name)
        (self._names / f"{name}.json").unlink(missing_ok=True)
        if sha256 is None or sha256 in self._named():
            return None
        self._delete(sha256)
        return sha256

    def remove_unnamed(self) -> tuple[str, ...]:
        """Delete the models that no name stands for. Returns their sha256."""
        named = self._named()
        gone = tuple(sorted(path.stem for path in self._files.glob("*.onnx") if path.stem not in named))
        for sha256 in gone:
            self._delete(sha256)
        return gone

    def _named(self) -> set[str | None]:
        return {self._stands_for(path.stem) for path in self._names.glob("*.json")}

    def _delete(self, sha256: str) -> None:
        for path in (self._files / f"{sha256}.json", self._files / f"{sha256}.onnx"):
            path.unlink(missing_ok=True)

    def converted(self, key: str) -> str | None:
        """Return the sha256 of what a conversion gave, None where it has to be done."""
        sha256 = self._noted(self._conversions / f"{key}.json")
        return sha256 if sha256 is not None and self._has(sha256) else None

    def _noted(self, note: Path) -> str | None:
        try:
            return str(json.loads(note.read_bytes())["sha256"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def adopt(self, convert: Callable[[Path], tuple[ModelSpec, Facts]], key: str) -> str:
        """Run a conversion into the registry: `convert` writes the file that it is given, whole. Returns its sha256."""
        self._prepare()
        with atomic.unfinished(self._files) as fresh:
            spec, facts = convert(fresh)
            sha256 = file_sha256(fresh)
            fresh.replace(self._files / f"{sha256}.onnx")
        self._write(sha256, _Entry(spec=spec, facts=facts))
        write_atomically(self._conversions / f"{key}.json", json.dumps({"sha256": sha256}).encode())
        return sha256

    def give_name(self, name: str, sha256: str, *, replace: bool = False) -> RegisteredModel:
        """Give a model that is here a name.

        replace: also one that stands for another model; without it, that raises ModelError.
        """
        name = valid_name(name)
        before = self._stands_for(name)
        if before not in (None, sha256) and self._has(before) and not replace:
            raise _taken(name, before)
        if before != sha256:
            document = _Name(sha256=sha256, created_at=time.time())
            write_atomically(self._names / f"{name}.json", document.model_dump_json().encode())
        return self._load(name)

    def expect_free(self, name: str) -> None:
        """Raise ModelError where a name stands for another model than a conversion that was not done yet can give."""
        before = self._stands_for(name)
        noted = map(self._noted, self._conversions.glob("*.json"))
        if before is not None and before in noted and self._has(before):
            raise _taken(name, before)

    def _expect(self, name: str) -> None:
        """Raise ModelError where there is no such name, with names that are near."""
        if not self._is_name(name):
            names = sorted(path.stem for path in self._names.glob("*.json"))
            near = difflib.get_close_matches(name, names, 3) or names[:3]
            hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
            rest = "List them with `trtjob models`, or name a model's file (`trtjob convert` gives it a name)"
            raise ModelError(f"no model '{name}'. {hint}{rest}")

    def _is_name(self, name: str) -> bool:
        return _NAME.fullmatch(name) is not None and (self._names / f"{name}.json").is_file()

    def _stands_for(self, name: str) -> str | None:
        """Return the sha256 of a name's model, None where the name is free or damaged."""
        try:
            return _Name.model_validate_json((self._names / f"{name}.json").read_bytes()).sha256
        except (OSError, ValidationError):
            return None

    def _load(self, name: str) -> RegisteredModel:
        path = self._names / f"{name}.json"
        try:
            entry = _Name.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as err:
            raise _damaged(name, err, _removal(name) if self._is_name(name) else f"Delete '{path}'") from err
        return self._loaded(name, entry.sha256, entry.created_at)

    def _loaded(self, name: str, sha256: str, created_at: float | None) -> RegisteredModel:
        """created_at: of the name; of one that is none, the file's."""
        file = self._files / f"{sha256}.onnx"
        try:
            known = self._entry(sha256)
            found = file.stat()
        except (OSError, ValidationError) as err:
            raise _damaged(name, err, _removal(name)) from err
        when = found.st_mtime if created_at is None else created_at
        return RegisteredModel(name, sha256, file, known.spec, known.facts, found.st_size, when)

    def _has(self, sha256: str) -> bool:
        """Tell whether a model is here, whole: one that was damaged on the disk is made anew."""
        try:
            self._entry(sha256)
        except (OSError, ValidationError):
            return False
        model = self._files / f"{sha256}.onnx"
        return model.is_file() and file_sha256(model) == sha256

    def _entry(self, sha256: str) -> _Entry:
        return _Entry.model_validate_json((self._files / f"{sha256}.json").read_bytes())

    def _prepare(self) -> None:
        try:
            for folder in (self._files, self._names, self._conversions):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise ConversionError(f"cannot create '{err.filename}': {err.strerror}. Set TRTJOB_HOME") from err

    def _write(self, sha256: str, entry: _Entry) -> None:
        write_atomically(self._files / f"{sha256}.json", entry.model_dump_json(indent=1).encode())


def _removal(name: str) -> str:
    return f"Remove it with: trtjob models remove {name}"


def _damaged(name: str, err: OSError | ValidationError, remedy: str) -> ModelError:
    what = problems(err) if isinstance(err, ValidationError) else f"'{err.filename}': {err.strerror}"
    return ModelError(f"the registered model '{name}' is damaged: {what}. {remedy}")


def _taken(name: str, sha256: str) -> ModelError:
    return ModelError(
        f"the name '{name}' stands for another model ({sha256[:12]}), and no name moves by itself: choose another with "
        "--name, or move this one with --replace"
    )


def name_of(path: Path) -> str:
    """Return the name that a model gets from its file.

    >>> name_of(Path("models/yolov4 (best).weights"))
    'yolov4-best'
    """
    return re.sub(r"[^A-Za-z0-9._@-]+", "-", path.stem).strip("-._@")[:100] or "model"


def valid_name(name: str) -> str:
    """Return a name that a registry may hold. Raises ModelError for any other."""
    if not _NAME.fullmatch(name):
        raise ModelError(f"'{name}' cannot be a model's name: letters, digits and . _ @ - are allowed, up to 100")
    return name


def file_sha256(path: Path) -> str:
    """Return the hash of a file. Raises ModelError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as err:
        raise ModelError(f"'{path}' cannot be read: {err.strerror}") from err
