#!/bin/sh
# What make ci adds to make test: the thread sanitizer, the tests on aarch64 under qemu, and a minute of fuzzing for each parser.
# Usage: tools/ci.sh   (FUZZ_SECONDS=N for another length)
set -eu
cd "$(dirname "$0")/.."
cores=$(nproc)
start=$(date +%s)
stage() {
    echo "== $1 (at $(($(date +%s) - start)) s)"
}
configure() { # PRESET OPTION...; its output only when it fails
    mkdir -p build
    cmake --preset "$@" >"build/configure-$1.log" 2>&1 || {
        cat "build/configure-$1.log"
        exit 1
    }
}

# Where threads share: the pool, and what runs on it, under the thread sanitizer.
shared='base/threads base/alloc kernels/gemm ops/attention ops/linear ops/grouped_linear text/bpe_train models/golden api/threads'
runs='api/memory api/infer api/threads api/library infer/engine infer/generation infer/sampler models/config'
stage "threads: build"
configure tsan
# shellcheck disable=SC2046 # several words on purpose
cmake --build --preset tsan --target $(echo "$shared" | sed 's/[^ ]*/test_&/g' | tr / _)
stage "threads: tests"
ctest --test-dir build/tsan --output-on-failure -R "^($(echo "$shared" | tr ' ' '|'))\$"

# The library that only runs models: what it has, what it lacks, and how large a program with it is.
stage "inference only: build"
configure inference
# shellcheck disable=SC2046 # several words on purpose
cmake --build --preset inference --target product $(echo "$runs" | sed 's/[^ ]*/test_&/g' | tr / _)
stage "inference only: tests"
ctest --test-dir build/inference --output-on-failure --parallel "$cores" -R "^($(echo "$runs" | tr ' ' '|'))\$"
tests/tools/inference_test.sh build/inference build/release . cc build/inference/scratch/program

stage "aarch64: build"
tools/fetch_aarch64.sh build/aarch64-libraries
libraries=$PWD/build/aarch64-libraries/root
(
    export PKG_CONFIG_LIBDIR="$libraries/usr/lib/aarch64-linux-gnu/pkgconfig"
    export PKG_CONFIG_SYSROOT_DIR="$libraries"
    configure aarch64 --fresh # what was found in another library folder is not kept
    cmake --build --preset aarch64
)

# qemu runs one program: tests that start others stay out, and so do those that take minutes on real hardware. What is
# about files and time, and not about the processor, has been seen before.
# A processor without bf16 instructions, which an emulator takes four times as long for, does for most; what has them is
# run with all extensions, where every way of computing a product is tested. The last processor has no extension.
extended='base/cpu|kernels/(dispatch|gemm|gemm_i8|attention)|ops/(linear|grouped_linear|attention)'
emulated() { # PROCESSOR CTEST_OPTION...
    stage "aarch64: tests on qemu's $1"
    processor=$1
    shift
    QEMU_CPU=$processor EMBER_TEST_EMULATED=1 ctest --test-dir build/aarch64 --output-on-failure --parallel "$cores" --timeout 900 "$@"
}
emulated cortex-a76 -LE 'slow|process' \
    -E "^(cli|faults)/|faults\$|full_disk\$|^bench/bench\$|^train/(text|folder)\$|^infer/perplexity\$|_golden\$|^($extended)\$"
emulated max -R "^($extended)\$"
emulated cortex-a53 -R '^(base/cpu|kernels/(dispatch|gemm_i8)|ops/linear)$'

targets=$(find tests/fuzz -name '*_fuzz.c' -exec basename {} .c \; | LC_ALL=C sort)
stage "fuzzing: build"
configure fuzz -DCMAKE_C_FLAGS=-w # GCC has already said what there is to say
# shellcheck disable=SC2086 # several words on purpose
cmake --build --preset fuzz --target $targets

# Reports and event files are written and never read: ten seconds of strange content are enough.
stage "fuzzing: ${FUZZ_SECONDS:-60} s for each parser"
written='^(markup|tensorboard)_fuzz$'
echo "$targets" | grep -Ev "$written" | xargs -P "$cores" -I TARGET tools/fuzz.sh TARGET "${FUZZ_SECONDS:-60}"
echo "$targets" | grep -E "$written" | xargs -P "$cores" -I TARGET tools/fuzz.sh TARGET 10
stage "done"
