#!/bin/sh
# The side-by-side comparisons with reference implementations (`make compare`).
#
#     tools/compare.sh [EMBER] [BUILD_DIR]
#
# Runs every comparison, also after one failed, and ends with a line for each. Exit status 1 if one failed.
set -u

root=$(cd "$(dirname "$0")/.." && pwd)
ember=${1:-$root/build/release/ember}
build=${2:-$root/build}
if [ ! -x "$ember" ]; then
    echo "compare: $ember is not there: build the release first" >&2
    exit 1
fi
python=$("$root/tools/compare_env.sh" "$build/compare/venv") || exit 1

export PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
failed=0
summary=
run() {
    title=$1
    shift
    printf '\n== %s\n' "$title"
    if "$python" "$@"; then
        summary="$summary
passed  $title"
    else
        summary="$summary
FAILED  $title"
        failed=$((failed + 1))
    fi
}

run "goldens: forward, gradients and chunks" "$root/tools/check_forward.py" --ember "$ember" "$root"/tests/golden/models/*/
run "random models of every family: forward, gradients and chunks" "$root/tools/check_forward.py" --ember "$ember"
run "folders trained by Ember in transformers" "$root/tools/check_folder.py" --ember "$ember"
run "200 steps of training beside PyTorch's" "$root/tools/compare_training.py" --ember "$ember"
run "tokenizers beside Hugging Face's" "$root/tools/compare_tokenizer.py" --ember "$ember"

printf '\n== summary\n%s\n' "${summary#?}"
[ "$failed" -eq 0 ]
