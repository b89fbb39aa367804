#!/usr/bin/env bash
# Write requirements.lock and readers.lock from pyproject.toml; with --check only say whether they are up to date.
# Both packages of ONNX Runtime are in it, since it only says which version of each: an extra chooses one of them.
# The pins that are there are kept where they still fit; `make lock UPGRADE=1` takes the newest versions.
set -euo pipefail
cd "$(dirname "$0")/.."

compile() {
    .venv/bin/uv pip compile pyproject.toml "${@:2}" --universal --python-version 3.11 --no-header --no-annotate --quiet \
        --output-file "$1" ${UPGRADE:+--upgrade} >/dev/null
}

# The tools of `make readers` have versions of their own where Datumaro and MegaDetector take no newest.
compile_both() {
    compile "$1/requirements.lock" --group dev --group heavy --extra keras --extra heif --extra jxl --extra pandas --extra polars \
        --extra video --extra cpu --extra cuda
    compile "$1/readers.lock" --group readers --extra cpu --extra pandas --extra parquet --extra polars --extra supervision \
        --overrides scripts/readers-overrides.txt --constraint <(grep -vE '^(pandas|pyarrow|setuptools)==' "$1/requirements.lock")
}

if [[ ${1:-} != --check ]]; then
    compile_both .
    exit
fi

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
cp requirements.lock readers.lock "$fresh"
compile_both "$fresh"
for lock in requirements.lock readers.lock; do
    if ! diff -u "$lock" "$fresh/$lock"; then
        echo "$lock does not fit pyproject.toml: run make lock and commit it" >&2
        exit 1
    fi
done
