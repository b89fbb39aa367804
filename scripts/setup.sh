#!/usr/bin/env bash
# Make .venv with the pinned dependencies and this checkout, editable; with the argument `all` also what only some
# tests need, which is a gigabyte.
# `make setup` calls it; PYTHON chooses the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."

supported='import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))'

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3 python}; do
        if "$candidate" -c "$supported" 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "No usable Python: looked for ${PYTHON:-python3.13, python3.12, python3.11, python3 and python} and need 3.11, 3.12 or 3.13." >&2
    echo "Install one, or name it: make setup PYTHON=/path/to/python3.12" >&2
    return 1
}

if ! .venv/bin/python -c "$supported" 2>/dev/null; then
    python=$(find_python)
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        echo "$python cannot make virtual environments. On Debian or Ubuntu: apt install python$version-venv" >&2
        exit 1
    fi
    "$python" -m venv --clear .venv
fi

.venv/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9,<0.14'
wanted=(--group dev --editable .)
if [[ ${1:-} == all ]]; then
    wanted=(--group dev --group heavy --editable '.[keras]')
fi
.venv/bin/uv pip install --quiet --compile-bytecode --python .venv/bin/python --constraint requirements.lock "${wanted[@]}"
