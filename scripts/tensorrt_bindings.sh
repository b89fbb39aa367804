#!/usr/bin/env bash
# Bring the Python modules of several versions of TensorRT, a megabyte each, to .venv/tensorrt-bindings/VERSION: without
# their libraries they compute nothing, but the tests look up in them every name that we use.
# What is there already is left as it is.
set -euo pipefail
cd "$(dirname "$0")/.."

# The first versions have none for the newest Pythons.
modules=(
    tensorrt-cu12-bindings==10.9.0.34
    tensorrt-cu12-bindings==10.16.1.11
    tensorrt-cu13-bindings==11.0.0.114
    tensorrt-cu13-bindings==11.4.0.106
)
minor=$(.venv/bin/python -c 'import sys; print(sys.version_info.minor)')
if ((minor <= 12)); then
    modules+=(tensorrt-cu12-bindings==10.0.1 tensorrt-cu12-bindings==10.3.0)
fi
if ((minor <= 11)); then
    modules+=(tensorrt-bindings==8.6.1)
fi

if [[ $(uname -sm) != "Linux x86_64" ]]; then
    echo "TensorRT's modules are checked on Linux x86_64 alone: there is nothing to bring." >&2
    exit 0
fi
for module in "${modules[@]}"; do
    folder=.venv/tensorrt-bindings/${module##*==}
    if [[ ! -d $folder ]]; then
        # Into another folder first, so that a download that breaks off leaves none that seems whole.
        rm -rf "$folder.part"
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --target "$folder.part" "$module"
        mv "$folder.part" "$folder"
    fi
done
