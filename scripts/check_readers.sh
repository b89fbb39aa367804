#!/usr/bin/env bash
# Install the tools that exports are for into an empty environment, and have each read what we write, by its own reader.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

.venv/bin/uv venv --quiet --python .venv/bin/python "$work/venv"
.venv/bin/uv pip install --quiet --python "$work/venv/bin/python" --no-deps --requirements readers.lock --editable .
TRTJOB_REQUIRE_READERS=1 QT_QPA_PLATFORM=offscreen "$work/venv/bin/python" -m pytest -q -m reader tests/jobs tests/api
