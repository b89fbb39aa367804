"""The models of this machine: known by the sha256 of their ONNX file, called by names.

models/
  files/<sha256>.onnx, .json      a model, and what is known of it without opening it
  names/<name>.json               a name: which model it stands for
  conversions/<key>.json          what a conversion gave, so that the same files are converted once
"""

import difflib
import hashlib
import json
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from trtjob.converters.output import write_atomically
from trtjob.engines.spec import ModelSpec, load_spec, problems
from trtjob.errors import ConversionError, ModelError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,99}")


class Facts(BaseModel):
    """What was seen at a conversion; unlike the spec it is no part of the model.

    outputs: the shape of each, by name; seconds: that it took; cpu_ms, reference_cpu_ms: CPU time for one image of the
    model and of its reference; notes: what was found or assumed, a sentence each.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    layers: int
    parameters: int
    outputs: dict[str, tuple[int | str, ...]] = {}
    seconds: float
    cpu_ms: float | None = None
    reference_cpu_ms: float | None = None
    reference_size_bytes: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A model under a name; `created_at`: seconds since the epoch."""

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


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    spec: ModelSpec
    facts: Facts | None = None


class _Name(BaseModel):
    model_config = ConfigDict(extra="forbid")

    sha256: str
    created_at: float


class ModelRegistry:
    """The models below one folder. Safe to use from several processes: every file appears whole."""

    def __init__(self, models_dir: Path) -> None:
        self.folder = models_dir
        self._files, self._names, self._conversions = (models_dir / n for n in ("files", "names", "conversions"))

    def list(self) -> "list[RegisteredModel]":
        """Return the models by name."""
        return [self._load(path.stem) for path in sorted(self._names.glob("*.json"))]

    def get(self, name: str) -> RegisteredModel:
        """Return a model by its name. Raises ModelError where there is none, with names that are near."""
        self._expect(name)
        return self._load(name)

    def add(self, name: str, model: Path) -> RegisteredModel:
        """Copy an ONNX file of ours into the registry, under a name. Raises ModelError, ConversionError."""
        name, sha256 = valid_name(name), file_sha256(model)
        if not self._has(sha256):
            spec = load_spec(model)
            self._prepare()
            write_atomically(self._files / f"{sha256}.onnx", model.read_bytes())
            self._write(sha256, _Entry(spec=spec))
        return self.call(name, sha256)

    def remove(self, name: str) -> str | None:
        """Forget a name, and the model where no other name stands for it; return the sha256 of a model that is gone.

        Raises ModelError where there is no such name.
        """
        self._expect(name)
        sha256 = self._stands_for(name)
        (self._names / f"{name}.json").unlink(missing_ok=True)
        if sha256 is not None and all(self._stands_for(path.stem) != sha256 for path in self._names.glob("*.json")):
            for path in (self._files / f"{sha256}.json", self._files / f"{sha256}.onnx"):
                path.unlink(missing_ok=True)
            return sha256
        return None

    def converted(self, key: str) -> str | None:
        """Return the sha256 of what a conversion gave, None where it has to be done."""
        try:
            sha256 = str(json.loads((self._conversions / f"{key}.json").read_bytes())["sha256"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return sha256 if self._has(sha256) else None

    def adopt(self, name: str, convert: Callable[[Path], tuple[ModelSpec, Facts]], key: str) -> RegisteredModel:
        """Run a conversion into the registry: `convert` writes the file that it is given, whole."""
        name = valid_name(name)
        self._prepare()
        fresh = self._files / f".{secrets.token_hex(8)}.part"
        try:
            spec, facts = convert(fresh)
            sha256 = file_sha256(fresh)
            fresh.replace(self._files / f"{sha256}.onnx")
        finally:
            fresh.unlink(missing_ok=True)
        self._write(sha256, _Entry(spec=spec, facts=facts))
        write_atomically(self._conversions / f"{key}.json", json.dumps({"sha256": sha256}).encode())
        return self.call(name, sha256)

    def call(self, name: str, sha256: str) -> RegisteredModel:
        """Give a model that is here a name."""
        name = valid_name(name)
        if self._stands_for(name) != sha256:
            document = _Name(sha256=sha256, created_at=time.time())
            write_atomically(self._names / f"{name}.json", document.model_dump_json().encode())
        return self._load(name)

    def _expect(self, name: str) -> None:
        """Raise ModelError where there is no such name, with names that are near."""
        if not _NAME.fullmatch(name) or not (self._names / f"{name}.json").is_file():
            names = sorted(path.stem for path in self._names.glob("*.json"))
            near = difflib.get_close_matches(name, names, 3) or names[:3]
            hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
            raise ModelError(f"no model '{name}'. {hint}List them with `trtjob models`, or name a model's file")

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
            known = _Entry.model_validate_json((self._files / f"{entry.sha256}.json").read_bytes())
            file = self._files / f"{entry.sha256}.onnx"
            size = file.stat().st_size
            return RegisteredModel(name, entry.sha256, file, known.spec, known.facts, size, entry.created_at)
        except (OSError, ValidationError) as err:
            what = problems(err) if isinstance(err, ValidationError) else f"'{err.filename}': {err.strerror}"
            raise ModelError(
                f"the registered model '{name}' is damaged: {what}. Remove it with: trtjob models remove {name}"
            ) from err

    def _has(self, sha256: str) -> bool:
        """Tell whether a model is here, whole: one that was damaged on the disk is made anew."""
        model = self._files / f"{sha256}.onnx"
        return model.is_file() and (self._files / f"{sha256}.json").is_file() and file_sha256(model) == sha256

    def _prepare(self) -> None:
        try:
            for folder in (self._files, self._names, self._conversions):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise ConversionError(f"cannot create '{err.filename}': {err.strerror}. Set TRTJOB_HOME") from err

    def _write(self, sha256: str, entry: _Entry) -> None:
        write_atomically(self._files / f"{sha256}.json", entry.model_dump_json(indent=1).encode())


def name_of(path: Path) -> str:
    """Return the name that a model gets from its file."""
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
