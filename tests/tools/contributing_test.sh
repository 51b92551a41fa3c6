#!/bin/sh
# Follows CONTRIBUTING.md: its new files and lines go into a copy of the tree, in the page's order, and its commands run
# there. Without EMBER_TEST_FULL=1 nothing is configured and built anew: what is new, and what reads a changed list, is
# compiled as the build compiled its neighbours, and linked in front of the build's library.
# Usage: contributing_test.sh SOURCE BUILD SCRATCH CC SUPPORT_LIBRARY EMBER_LIBRARY LIBRARIES
set -eu
source=$1 build=$2 scratch=$3 cc=$4 support=$5 ember=$6 libraries=$7
copy=$scratch/tree
export LC_ALL=C
rm -rf "$scratch"
mkdir -p "$copy" "$scratch/steps" "$scratch/bin" "$scratch/objects"
for entry in "$source"/* "$source"/.clang-format; do
    case ${entry##*/} in build) ;; *) cp -R "$entry" "$copy/" ;; esac
done

# The page as numbered steps: a line of what to do (new PATH, add PATH, insert PATH PATTERN, run), and a block.
awk -v out="$scratch/steps/" '
    /^New file `[^`]*`:$/ { split($0, part, "`"); step = "new " part[2]; next }
    /^Add to `[^`]*`:$/ { split($0, part, "`"); step = "add " part[2]; next }
    /^Add to `[^`]*` before `[^`]*`:$/ { split($0, part, "`"); step = "insert " part[2] " " part[4]; next }
    /^```sh$/ { step = "run" }
    /^```(c|sh)$/ { if (step == "") { print FILENAME ":" NR ": a block without a place" > "/dev/stderr"; exit 1 }
                    file = sprintf("%s%03d", out, ++n); print step > file; inside = 1; step = ""; next }
    /^```/ { inside = 0; close(file); next }
    inside { print > file }
    END { if (inside || n < 10) exit 1 }' "$source/CONTRIBUTING.md"

# The command by which the build made the object of $1, for $2 in the copy: as many lines as there are such objects.
commands_like() {
    awk -v file="\"file\": \"$source/$1\"" '
        /^ *"command": / { command = $0 }
        index($0, file) { print command }' "$build/compile_commands.json" |
        sed -e 's/^ *"command": "//; s/",$//; s/\\"/"/g; s/\\\\/\\/g' -e "s|$build/|@BUILD@|g; s|$source/|$copy/|g; s|@BUILD@|$build/|g" \
            -e "s|$copy/$1|$copy/$2|g" -e 's| -o [^ ]*| -o OBJECT|; s| -M[TF] [^ ]*||g; s| -MD||'
}
compile() { # SIBLING FILE...: appends to $objects
    sibling=$1
    shift
    for file in "$@"; do
        commands_like "$sibling" "$file" >"$scratch/commands"
        [ -s "$scratch/commands" ] || { echo "$build has no command for $sibling" >&2; exit 1; }
        while read -r command; do
            count=$((count + 1))
            object=$scratch/objects/$count.o
            (cd "$build" && eval "${command%% -o OBJECT*} -o '$object' ${command#* -o OBJECT}")
            objects="$objects $object"
        done <"$scratch/commands"
    done
}

# What `cmake --build` does in a minute, for the targets that the page names.
quick_build() {
    mkdir -p "$copy/build/release/tests"
    objects=
    count=0
    for file in $(cat "$scratch/changed"); do
        case $file in
        src/nn/list.def) compile src/nn/components.c src/nn/components.c ;;
        src/ops/list.def) compile src/ops/list.c src/ops/list.c ;;
        src/kernels/list.def) compile src/kernels/dispatch.c src/kernels/dispatch.c ;;
        src/models/list.def) compile src/models/family.c src/models/family.c ;;
        include/*) ;;
        src/nn/*.c) compile src/nn/components.c "$file" ;;
        src/ops/*.c) compile src/ops/list.c "$file" ;;
        src/kernels/isa/*.c) compile src/kernels/isa/norm.c "$file" ;;
        src/models/*.c) compile src/models/family.c "$file" ;;
        tests/*) ;;
        *) echo "nobody knows how to build $file" >&2 && exit 1 ;;
        esac
    done
    library=$objects
    for target in "$@"; do
        objects=
        case $target in
        test_*)
            name=${target#test_}
            file=tests/${name%%_*}/${name#*_}_test.c
            case $name in
            kernels_*) compile tests/kernels/norm_test.c "$file" ;;
            ops_*) compile tests/ops/scale_test.c "$file" ;;
            models_*) compile tests/models/config_test.c "$file" ;;
            *) compile "$file" "$file" ;;
            esac
            output=$copy/build/release/tests/$target
            ;;
        ember_cli)
            objects=$(find "$build/CMakeFiles/ember_cli.dir/cli" -name '*.o')
            output=$copy/build/release/ember
            ;;
        *) echo "nobody knows how to build $target" >&2 && exit 1 ;;
        esac
        # shellcheck disable=SC2086 # several words each
        $cc $objects $library "$support" "$ember" $libraries -o "$output"
    done
}

# Stand-ins for the page's commands, where they would build everything: they call back with what is asked for.
if [ "${EMBER_TEST_FULL:-0}" = 0 ]; then
    cat >"$scratch/bin/cmake" <<END
#!/bin/sh
case "\$*" in
"--preset release") ;;
"--build --preset release --target "*) shift 4 && echo "\$@" >>"$scratch/wanted" ;;
*) echo "cmake \$*: not foreseen" >&2 && exit 1 ;;
esac
END
    cat >"$scratch/bin/make" <<END
#!/bin/sh
[ "\$*" = docs ] || exit 1
build/release/ember registry --markdown >build/components.md && mv build/components.md docs/components.md
END
    chmod +x "$scratch/bin"/*
fi

cd "$copy"
: >"$scratch/changed"
runs=0
for step in "$scratch"/steps/*; do
    read -r verb path pattern <"$step"
    tail -n +2 "$step" >"$scratch/block"
    case $verb in
    new)
        [ ! -e "$path" ] || { echo "$path is there already" >&2; exit 1; }
        cp "$scratch/block" "$path"
        ;;
    add) cat "$scratch/block" >>"$path" ;;
    insert)
        awk -v pattern="$pattern" -v block="$scratch/block" '
            !done && index($0, pattern) { while ((getline line < block) > 0) print line; done = 1 }
            { print }
            END { exit !done }' "$path" >"$scratch/inserted" || { echo "$path has no line with \"$pattern\"" >&2; exit 1; }
        cp "$scratch/inserted" "$path"
        ;;
    run)
        runs=$((runs + 1))
        if [ "${EMBER_TEST_FULL:-0}" = 0 ]; then
            : >"$scratch/wanted"
            grep '^cmake ' "$scratch/block" >"$scratch/first" || :
            PATH=$scratch/bin:$PATH sh -eu "$scratch/first"
            # shellcheck disable=SC2046 # names of targets
            [ ! -s "$scratch/wanted" ] || quick_build $(cat "$scratch/wanted")
        fi
        PATH=$scratch/bin:$PATH sh -eux "$scratch/block" </dev/null
        ;;
    esac
    case $verb in run) ;; *) grep -qx "$path" "$scratch/changed" || echo "$path" >>"$scratch/changed" ;; esac
done
[ "$runs" -ge 6 ]
for name in highway normed_topk mistral; do
    grep -q "^### \`$name\`" docs/components.md || { echo "$name is not in docs/components.md" >&2; exit 1; }
done
echo "$runs blocks of commands ran"
