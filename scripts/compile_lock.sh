#!/usr/bin/env bash
# Write requirements.lock from pyproject.toml; with --check only say whether it is up to date.
# Both packages of ONNX Runtime are in it, since it only says which version of each: an extra chooses one of them.
# The pins that are there are kept where they still fit; `make lock UPGRADE=1` takes the newest versions.
set -euo pipefail
cd "$(dirname "$0")/.."

compile() {
    .venv/bin/uv pip compile pyproject.toml --group dev --group heavy --extra keras --extra heif --extra jxl --extra pandas --extra polars --extra video --extra cpu --extra cuda \
        --universal --python-version 3.11 --no-header --no-annotate --quiet --output-file "$1" ${UPGRADE:+--upgrade} >/dev/null
}

if [[ ${1:-} != --check ]]; then
    compile requirements.lock
    exit
fi

fresh=$(mktemp)
trap 'rm -f "$fresh"' EXIT
cp requirements.lock "$fresh"
compile "$fresh"
if ! diff -u requirements.lock "$fresh"; then
    echo "requirements.lock does not fit pyproject.toml: run make lock and commit it" >&2
    exit 1
fi
