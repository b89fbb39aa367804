#!/usr/bin/env bash
# Compile pycuda, of which only the source is published, into a wheel for the Python that is named.
#
#     build-pycuda.sh PYTHON VERSION NUMPY FOLDER       for example: build-pycuda.sh python3.12 2026.1 2.5.5 /wheels
#
# CUDA_ROOT: the CUDA toolkit, /usr/local/cuda unless set. CUDA_STUBS: the folder of the libcuda.so to link with.
set -euo pipefail

python=$1 version=$2 numpy=$3 folder=$4
cuda=${CUDA_ROOT:-/usr/local/cuda}
stubs=${CUDA_STUBS:-$cuda/lib64/stubs}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

"$python" -m venv tools
tools/bin/pip install --quiet --no-cache-dir "numpy==$numpy" 'setuptools==84.2.1' 'wheel==0.48.0'
tools/bin/pip download --quiet --no-cache-dir --no-deps --no-build-isolation --no-binary pycuda "pycuda==$version"
tar --extract --gzip --strip-components 1 --file pycuda-*.tar.gz

# Without the root, pycuda looks where nvcc is and finds no cuda.h; random numbers would ask for libcurand at run time.
tools/bin/python configure.py --no-cuda-enable-curand --cuda-root="$cuda"
PATH=$cuda/bin:$PATH LIBRARY_PATH=$stubs tools/bin/pip wheel --quiet --no-cache-dir --no-deps --no-build-isolation \
    --wheel-dir "$folder" .

# Linked with a stub that lacks what it calls, it would build, and fail in every import.
"$python" -m zipfile --extract "$folder"/pycuda-"$version"-*.whl built
needed=$(readelf --dynamic built/pycuda/_driver*.so)
if [[ $needed != *libcuda.so.1* ]]; then
    echo "pycuda is not linked with libcuda.so.1: $stubs/libcuda.so is not the toolkit's stub" >&2
    exit 1
fi
