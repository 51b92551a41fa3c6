#!/bin/sh
# Runs every command that the documents show. A block of ```sh is a script; all of a tree run in one scratch folder,
# README.md first, so that a later page may use the model that the README trained. Commands in `backticks` that begin with
# "ember" are not run: their subcommand and options have to be there.
#
# What would take minutes or need the network is cut short, here and nowhere else:
#   ember train   takes 3 steps of 2 x 32 tokens;
#   make            says what it would do, and fails for a target that does not exist;
#   cmake --build   builds nothing: that the folder can be built is what configuring it has shown.
# A block after a line <!-- not run: REASON --> is left out.
#
# Usage: documents_test.sh SOURCE_FOLDER PROGRAM SCRATCH_FOLDER [DOCUMENT...]
set -eu
source=$1 program=$2 scratch=$3
shift 3
export LC_ALL=C
rm -rf "$scratch"
mkdir -p "$scratch/bin" "$scratch/blocks" "$scratch/run/build/release"

# The tree as a reader has it: his copy of the sources, with nothing built but the program.
cd "$scratch/run"
for entry in "$source"/* "$source"/.clang-format; do
    name=$(basename "$entry")
    case $name in
    build) ;;
    examples) cp -R "$entry" "$name" ;; # their pages build in place
    *) [ ! -e "$entry" ] || ln -s "$entry" "$name" ;;
    esac
done
mkdir -p my-texts
for page in README.md docs/architecture.md docs/configs.md; do
    cp "$source/$page" "my-texts/$(basename "$page" .md).txt"
done
cp my-texts/README.txt my-text.txt

cat >"$scratch/bin/ember" <<EOF
#!/bin/sh
if [ "\${1:-}" = train ]; then
    case " \$* " in *" --help "* | *" --resume "* | *" --dry-run "*) ;; *)
        exec "$program" "\$@" --set train.steps=3 --set train.batch=2 --set train.seq=32 --set train.final_eval_tokens=256 ;;
    esac
fi
exec "$program" "\$@"
EOF
cat >"$scratch/bin/make" <<EOF
#!/bin/sh
exec $(command -v make) -n -C "$source" "\$@"
EOF
cat >"$scratch/bin/cmake" <<EOF
#!/bin/sh
real=$(command -v cmake)
case "\${1:-}" in
--build) exec "\$real" --build "\$2" --target help >/dev/null ;;
--install) [ -d "\$2" ] ;;
*) exec "\$real" "\$@" -DEMBER_TESTS=OFF ;;
esac
EOF
chmod +x "$scratch"/bin/*
cp "$scratch/bin/ember" build/release/ember

# The list of documents, README first.
if [ $# = 0 ]; then
    set -- README.md
    for page in "$source"/docs/*.md "$source"/SECURITY.md "$source"/examples/*/README.md; do
        [ ! -f "$page" ] || set -- "$@" "${page#"$source"/}"
    done
fi

ran=0 left_out=0 failed=0
for page in "$@"; do
    rm -f "$scratch"/blocks/*
    awk -v out="$scratch/blocks/" '
        /^```sh *$/ { n++; file = sprintf("%s%03d", out, n)
                      if (skip) { file = file ".skip"; print why > file } else print "# line " NR > file
                      inside = 1; next }
        /^```/ { inside = 0; next }
        inside && !skip { print > file }
        !inside { skip = /^<!-- not run: ..* -->$/; if (skip) why = $0 }' "$source/$page"
    for block in "$scratch"/blocks/*; do
        [ -f "$block" ] || continue
        case $block in *.skip)
            left_out=$((left_out + 1))
            echo "$page: left out: $(cat "$block")"
            continue
            ;;
        esac
        ran=$((ran + 1))
        if ! PATH=$scratch/bin:$PATH EMBER_SOURCE=$source timeout 120 sh -eu "$block" >"$scratch/log" 2>&1 </dev/null; then
            failed=$((failed + 1))
            echo "$page: this block fails:"
            cat "$block" "$scratch/log"
        fi
    done
done

# Commands in running text.
"$program" --help | sed -n 's/^  ember \([a-z]*\) .*/\1/p' >"$scratch/commands"
for command in $(cat "$scratch/commands"); do
    "$program" "$command" --help >"$scratch/help.$command"
done
for page in "$@"; do
    { grep -o '`\(build/release/\)\{0,1\}ember [^`]*`' "$source/$page" || :; } | tr -d '`' | sort -u >"$scratch/spans"
    while read -r _ command rest; do
        case $command in --version | --help | NAME | COMMAND | '...') continue ;; esac
        if ! grep -qx "$command" "$scratch/commands"; then
            failed=$((failed + 1))
            echo "$page: there is no command 'ember $command'"
            continue
        fi
        for word in $rest; do
            case $word in --help) continue ;; --[a-z]*) ;; *) continue ;; esac
            option=$(printf '%s' "${word%%[=,.;:)]*}" | sed 's/\]*$//')
            if ! grep -q -e "$option\([ ,]\|\$\)" "$scratch/help.$command"; then
                failed=$((failed + 1))
                echo "$page: ember $command has no option $option"
            fi
        done
    done <"$scratch/spans"
done

echo "$ran blocks of commands ran, $left_out were left out, $failed failed"
[ "$failed" = 0 ] && [ "$ran" -gt 0 ]
