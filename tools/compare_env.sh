#!/bin/sh
# Makes a Python environment with the reference implementations and prints its interpreter's path.
#
#     tools/compare_env.sh DIR
#
# Packages come from PyPI alone. The PyTorch that is published there is linked to CUDA's libraries even where only
# its CPU part is used, and its full set of dependencies is several gigabytes: so the wheel is installed alone, and
# then just the libraries that the loader asks for and this machine lacks. EMBER_COMPARE_PYTHON names an
# interpreter that has everything already.
set -eu

TORCH=2.15.0
TRANSFORMERS=5.23.0
TOKENIZERS=0.23.3
SAFETENSORS=0.8.0

if [ -n "${EMBER_COMPARE_PYTHON:-}" ]; then
    echo "$EMBER_COMPARE_PYTHON"
    exit 0
fi
dir=${1:?usage: compare_env.sh DIR}
python=$dir/bin/python
say() { echo "compare: $*" >&2; }

if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    say "Python's venv module is missing. Run: apt-get install -y python3-venv"
    exit 1
fi

# The package that brings a shared library.
package_of() {
    case $1 in
    libcudart.so*) echo "cuda-toolkit[cudart]" ;;
    libcublas.so* | libcublasLt.so*) echo "cuda-toolkit[cublas]" ;;
    libcufft.so*) echo "cuda-toolkit[cufft]" ;;
    libcufile.so*) echo "cuda-toolkit[cufile]" ;;
    libcupti.so*) echo "cuda-toolkit[cupti]" ;;
    libcusolver.so*) echo "cuda-toolkit[cusolver]" ;;
    libcusparse.so*) echo "cuda-toolkit[cusparse]" ;;
    libnvJitLink.so*) echo "cuda-toolkit[nvjitlink]" ;;
    libnvrtc.so*) echo "cuda-toolkit[nvrtc]" ;;
    libcudnn.so* | cudnn*) echo "nvidia-cudnn-cu13" ;;
    libcusparseLt.so* | cusparseLt*) echo "nvidia-cusparselt-cu13" ;;
    libnccl.so* | nccl*) echo "nvidia-nccl-cu13" ;;
    libnvshmem_host.so* | nvshmem*) echo "nvidia-nvshmem-cu13" ;;
    *) return 1 ;;
    esac
}

# The same at the version that torch asks for.
pinned() {
    "$python" - "$1" <<'END'
import importlib.metadata, re, sys

wanted = sys.argv[1]
for line in importlib.metadata.requires("torch"):
    found = re.match(r"([\w.-]+)(?:\[[^]]*\])?(==[\w.]+)", line)
    if found and found.group(1) == wanted.split("[")[0]:
        print(wanted + found.group(2))
        break
else:
    print(wanted)
END
}

# pip reports torch's other dependencies as conflicts, which they are meant to be: its words go to a file.
pip() {
    if ! "$python" -m pip install --disable-pip-version-check "$@" >>"$dir/pip.log" 2>&1; then
        say "pip cannot install $*: $(tail -n 1 "$dir/pip.log") (see $dir/pip.log)"
        exit 1
    fi
}

if [ ! -e "$dir/ready" ]; then
    [ -x "$python" ] || python3 -m venv "$dir"
    say "installing torch $TORCH and transformers $TRANSFORMERS under $dir"
    pip --no-deps "torch==$TORCH"
    pip sympy networkx jinja2 fsspec filelock 'typing-extensions>=4.13' numpy 'setuptools>=77' \
        "transformers==$TRANSFORMERS" "tokenizers==$TOKENIZERS" "safetensors==$SAFETENSORS"
    last=
    while ! error=$("$python" -c 'import torch' 2>&1); do
        # A library that is not there, or one of another version that lacks a function.
        library=$(printf '%s\n' "$error" |
            sed -n 's/.*ImportError: \(lib[^:]*\): cannot open.*/\1/p; s/.*undefined symbol: \([A-Za-z]*\).*/\1/p')
        if [ -z "$library" ] || [ "$library" = "$last" ] || ! package=$(package_of "$library"); then
            say "torch does not load: $(printf '%s\n' "$error" | tail -n 1)"
            exit 1
        fi
        say "$library is not here: installing $(pinned "$package")"
        pip "$(pinned "$package")"
        last=$library
    done
    "$python" -c 'import transformers, safetensors, tokenizers, numpy'
    : >"$dir/ready"
fi
echo "$python"
