#!/usr/bin/env bash
# Make .venv with the pinned dependencies and this checkout, editable; with the argument `all` also what only some
# tests need, which is a gigabyte.
# `make setup` calls it; PYTHON chooses the interpreter. TRTJOB_SETUP chooses ONNX Runtime: cpu, cuda (with a driver for
# CUDA 13 and a card from Turing on) or cuda12 (older drivers and cards). Without it, what .venv was made with stays,
# and a new .venv gets what this machine's driver and cards ask for. `scripts/setup.sh which` only says what it would be.
set -euo pipefail
cd "$(dirname "$0")/.."

supported='import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))'
chosen_file=.venv/.onnxruntime

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3.14 python3 python}; do
        if "$candidate" -c "$supported" 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "No usable Python: looked for ${PYTHON:-python3.13, python3.12, python3.11, python3.14, python3 and python} and need 3.11 to 3.14." >&2
    echo "Install one, or name it: make setup PYTHON=/path/to/python3.12" >&2
    return 1
}

# Print the extra that fits every card here, one line of `driver, compute capability` each: its number times ten.
extra_for_cards() {
    awk -F '[,. ]+' '
        NF < 2 { next }
        BEGIN { extra = "cuda" }
        { any = 1; driver = $1; card = $(NF - 1) * 10 + $NF }
        driver < 525 || card < 60 { print "cpu"; found = 1; exit }
        driver < 580 || card < 75 { extra = "cuda12" }
        END { if (!found) print any ? extra : "cpu" }
    '
}

by_hand() {
    echo "By hand: make setup TRTJOB_SETUP=cuda, or TRTJOB_SETUP=cuda12 for Pascal and Volta (GTX 10xx, V100) or a driver older than 580." >&2
}

extra_for_this_machine() {
    local said cards extra=cpu
    if command -v nvidia-smi >/dev/null; then
        # It waits for ever for some drivers that are broken.
        if ! said=$(timeout 20 nvidia-smi --query-gpu=driver_version,compute_cap --format=csv,noheader 2>&1); then
            echo "nvidia-smi fails, so this is set up without the GPU. It says: ${said:-nothing}" >&2
            by_hand
        elif ! cards=$(grep -Ex '[0-9]+(\.[0-9]+)*, *[0-9]+\.[0-9]+' <<<"$said"); then # warnings may stand beside it
            echo "nvidia-smi names no GPU with its compute capability, so this is set up without one. It says: ${said:-nothing}" >&2
            by_hand
        else
            extra=$(extra_for_cards <<<"$cards")
            if [[ $extra == cpu ]]; then
                echo "ONNX Runtime needs driver 525 and compute capability 6.0, and here is '$cards': set up without the GPU." >&2
            fi
        fi
    elif ldconfig -p 2>/dev/null | grep -q 'libcuda\.so\.1'; then # as in some containers
        echo "NVIDIA's driver is here, but no nvidia-smi, which would name the card: set up for CUDA 13." >&2
        by_hand
        extra=cuda
    fi
    echo "$extra"
}

choose_extra() {
    case ${TRTJOB_SETUP:-} in
        cpu | cuda | cuda12) echo "$TRTJOB_SETUP" ;;
        '') cat "$chosen_file" 2>/dev/null || extra_for_this_machine ;;
        *)
            echo "TRTJOB_SETUP=$TRTJOB_SETUP: expected cpu, cuda or cuda12" >&2
            return 1
            ;;
    esac
}

# Two packages own the folder onnxruntime, and two that of cuDNN. Removing either damages the other, so all go where one
# is there that was not chosen.
remove_other_onnxruntime() {
    local other=onnxruntime-gpu before
    if [[ $1 != cpu ]]; then
        other=onnxruntime
    fi
    before=$(cat "$chosen_file" 2>/dev/null || echo "$1")
    if [[ $before != "$1" ]] || .venv/bin/uv pip show --quiet --python .venv/bin/python "$other" 2>/dev/null; then
        .venv/bin/uv pip uninstall --quiet --python .venv/bin/python \
            onnxruntime onnxruntime-gpu nvidia-cudnn-cu12 nvidia-cudnn-cu13
    fi
}

# The lock has what belongs to CUDA 13.
constraints() {
    if [[ $1 == cuda12 ]]; then
        grep -Ev '^(onnxruntime-gpu|cuda-|nvidia-)' requirements.lock
    else
        cat requirements.lock
    fi
}

extra=$(choose_extra)
if [[ ${1:-} == which ]]; then
    echo "$extra"
    exit
fi

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
wanted=(--group dev --editable ".[$extra]")
if [[ ${1:-} == all ]]; then
    wanted=(--group dev --group heavy --editable ".[keras,heif,jxl,pandas,polars,video,$extra]")
fi
remove_other_onnxruntime "$extra"
.venv/bin/uv pip install --quiet --compile-bytecode --python .venv/bin/python \
    --constraint <(constraints "$extra") "${wanted[@]}"
echo "$extra" >"$chosen_file"
