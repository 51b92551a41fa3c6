#!/bin/sh
# The innermost loops of kernels keep their vectors in registers: one that is read from the stack or written there
# between instructions that multiply and add is a compiler's spill, and costs up to two thirds of the speed.
# Usage: tools/check_loops.sh OBJDUMP LEAST OBJECT INSTRUCTION [OBJECT INSTRUCTION ...]
# Looks at loops with at least LEAST of the instruction (a name or an extended regular expression), the wide tiles; an
# object without one is an error too. Prints the widest loop of each object.
set -eu
objdump=$1 least=$2
shift 2
failed=0
while [ $# -ge 2 ]; do
    "$objdump" -d --no-show-raw-insn "$1" | awk -v object="$(basename "$1")" -v wanted="^($2)\$" -v least="$least" '
        function look(first, last,   i, count, stack) {
            count = stack = 0
            for (i = first; i <= last; i++) {
                if (i > first && i < last && i in ends) return # a loop around another
                if (name[i] ~ wanted) count++
                if (text[i] ~ /^[a-z0-9]+[ \t]+[qdsv][0-9].*\[sp/ || text[i] ~ /%[xyz]mm/ && (text[i] ~ /\(%rsp/ || frame && text[i] ~ /\(%rbp/)) stack++
            }
            if (count < least) return
            loops++
            if (stack) {
                printf "%s: %s: a loop of %d has %d accesses to the stack\n", object, function_name, count, stack
                bad = 1
            }
            if (count > most) { most = count; size = last - first + 1 }
        }
        function close_function(   i) {
            for (i in ends) look(ends[i], i + 0)
            for (i in ends) delete ends[i]
            for (i in at) delete at[i]
            n = frame = 0
        }
        /^[0-9a-f]+ <.*>:$/ { close_function(); function_name = substr($2, 2, length($2) - 3); next }
        /^ *[0-9a-f]+:/ {
            address = $1; sub(/:.*/, "", address)
            at[address] = ++n
            line = $0; sub(/^ *[0-9a-f]+:[ \t]*/, "", line)
            text[n] = line
            name[n] = $2
            if (line ~ /mov +%rsp,%rbp/) frame = 1
            if (match(line, /[0-9a-f]+ </) && name[n] ~ /^(j|b|cb|tb)/ && name[n] !~ /^(bl|bfm|bic|bsl|bit|bif)/) {
                target = substr(line, RSTART, RLENGTH - 2)
                if (target in at) ends[n] = at[target]
            }
        }
        END {
            close_function()
            if (!loops) { printf "%s: no loop with %s\n", object, wanted; exit 1 }
            printf "%s: %d loops; the widest: %d of %d instructions\n", object, loops, most, size
            exit bad
        }' || failed=1
    shift 2
done
exit $failed
