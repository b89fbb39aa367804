"""What an image process is told before its first image."""

import json
from dataclasses import asdict, dataclass

from trtjob.engines.spec import ModelSpec
from trtjob.worker.pipeline.ring import Layout


@dataclass(frozen=True, slots=True)
class ChildConfig:
    """What an image process must know before its first image.

    number: its board; memory_bytes: its budget for files and pixels; requests: to a bucket at once;
    allow_local: whether web addresses may be of this machine and its network.
    """

    number: int
    layout: Layout
    model: ModelSpec
    max_pixels: int
    jpeg_quality: int
    memory_bytes: int
    requests: int
    allow_local: bool
    log_level: str
    log_format: str

    def document(self) -> bytes:
        """Return it as JSON."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        fields |= {"layout": asdict(self.layout), "model": self.model.model_dump(mode="json")}
        return json.dumps(fields).encode()

    @classmethod
    def parse(cls, document: bytes) -> "ChildConfig":
        """Return what `document` wrote."""
        fields = json.loads(document)
        shapes = {name: tuple(fields["layout"][name]) for name in ("tensor", "answer")}
        fields["layout"] = Layout(**fields["layout"] | shapes)
        fields["model"] = ModelSpec.model_validate(fields["model"])
        return cls(**fields)
