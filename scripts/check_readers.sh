#!/usr/bin/env bash
# Install the tools that exports are for into an empty environment, and have each read what we write, by its own reader.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Each tool asks for an OpenCV of its own; all work with ours, and two would lie in one folder. What is never installed:
# FiftyOne's database and MegaDetector's PyTorch, without which they read files all the same.
cat >"$work/overrides.txt" <<'OVERRIDES'
opencv-python-headless>=5,<6
opencv-python; python_version < "3"
fiftyone-db; python_version < "3"
ultralytics-yolov5; python_version < "3"
OVERRIDES
# The versions of the lock, but for those of which Datumaro and MegaDetector take no newest.
grep -vE '^(pandas|pyarrow|setuptools)==' requirements.lock >"$work/constraints.txt"

.venv/bin/uv venv --quiet --python .venv/bin/python "$work/venv"
.venv/bin/uv pip install --quiet --python "$work/venv/bin/python" --constraint "$work/constraints.txt" \
    --overrides "$work/overrides.txt" --group readers --editable '.[cpu,pandas,parquet,polars,supervision]' \
    hypothesis pytest pytest-timeout
TRTJOB_REQUIRE_READERS=1 QT_QPA_PLATFORM=offscreen "$work/venv/bin/python" -m pytest -q -m reader tests/jobs tests/api
