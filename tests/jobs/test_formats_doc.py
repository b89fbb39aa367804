"""The examples of docs/formats.md are what trtjob writes."""

import re
from pathlib import Path

import pytest
from epochs import job_spec

from trtjob.errors import FailureKind
from trtjob.jobs.exports import ExportFormat, export
from trtjob.jobs.folder import RESULTS, JobFolder
from trtjob.jobs.records import from_line, to_line

PAGE = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()


def example(heading: str) -> str:
    """Return the first fenced block below a heading."""
    match = re.search(rf"^#+ {re.escape(heading)}\n.*?^```\w+\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert match is not None
    return match[1]


def test_the_record_on_the_page_is_written_so() -> None:
    lines = example("The record").encode().splitlines(keepends=True)
    assert [to_line(from_line(line)) for line in lines] == lines


@pytest.mark.parametrize("format", sorted(set(ExportFormat) - {ExportFormat.COCO_RESULTS, ExportFormat.PARQUET}))
def test_the_export_on_the_page_is_written_so(tmp_path: Path, format: ExportFormat) -> None:
    (tmp_path / RESULTS).write_text(example("The record"))
    out = tmp_path / "out"
    export(JobFolder.at(tmp_path), job_spec(tmp_path), format, out, conf=0.25)
    files = {ExportFormat.YOLO: "a.txt", ExportFormat.VOC: "a.xml", ExportFormat.LABELME: "a.json"}
    written = out / files[format] if format in files else out
    assert written.read_text() == example(format)


def test_the_page_names_every_kind_of_failure() -> None:
    assert [kind for kind in FailureKind if f"`{kind}`" not in PAGE] == []
