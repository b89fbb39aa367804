#!/usr/bin/env bash
# Show that every dependency has a wheel for a version of Python, also where none is at hand: resolve each extra for it
# on Linux x86_64, with nothing built from source. Prints how many packages each takes; the exit code is the extras that
# cannot be had.
#   scripts/check_python.sh 3.14
set -uo pipefail
cd "$(dirname "$0")/.."

version=${1:?which version of Python, such as 3.14}
missing=0
for extra in cpu cuda cuda12 tensorrt tensorrt-rtx nvjpeg heif jxl video parquet pandas polars supervision keras; do
    runtime=()
    [[ $extra == cuda* ]] || runtime=(--extra cpu)
    if resolved=$(.venv/bin/uv pip compile pyproject.toml "${runtime[@]}" --extra "$extra" --python-version "$version" \
        --python-platform x86_64-manylinux_2_28 --no-build --no-header --no-annotate --quiet 2>&1); then
        echo "$extra: $(wc -l <<<"$resolved") packages"
    else
        missing=$((missing + 1))
        echo "$extra: none. $(tr -s ' \n' ' ' <<<"$resolved" | cut -c 1-300)"
    fi
done
exit "$missing"
