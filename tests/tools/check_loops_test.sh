#!/bin/sh
# tools/check_loops.sh finds a sum that lies on the stack, and a loop that is not there.
# Usage: tests/tools/check_loops_test.sh CHECK_LOOPS CC OBJDUMP FOLDER
set -eu
check=$1 cc=$2 objdump=$3 folder=$4
rm -rf "$folder"
mkdir -p "$folder"
cat >"$folder/loops.c" <<'END'
#if defined(__aarch64__)
#define MULTIPLY_ADD(n) "fmla v" #n ".4s, v30.4s, v31.4s\n"
#define SPILL "str q0, [sp, #-16]\n"
#else
#define MULTIPLY_ADD(n) "vfmadd231ps %ymm14, %ymm15, %ymm" #n "\n"
#define SPILL "vmovaps %ymm0, -32(%rsp)\n"
#endif
void kernel(long n);
void kernel(long n)
{
    for (long i = 0; i < n; i++) {
        __asm__ volatile(MULTIPLY_ADD(0) MULTIPLY_ADD(1) MULTIPLY_ADD(2) MULTIPLY_ADD(3));
        for (long k = 0; k < n; k++)
            __asm__ volatile(MULTIPLY_ADD(0) MULTIPLY_ADD(1) INSIDE MULTIPLY_ADD(2) MULTIPLY_ADD(3));
        __asm__ volatile(SPILL); // around the loop, not in it
    }
}
END
"$cc" -O2 -DINSIDE= -c "$folder/loops.c" -o "$folder/clean.o"
"$cc" -O2 -DINSIDE=SPILL -c "$folder/loops.c" -o "$folder/spilled.o"
fma='fmla|vfmadd.*ps'
"$check" "$objdump" 4 "$folder/clean.o" "$fma" >"$folder/clean.txt"
grep -q 'clean.o: 1 loops; the widest: 4 of' "$folder/clean.txt"
if "$check" "$objdump" 4 "$folder/clean.o" "$fma" "$folder/spilled.o" "$fma" >"$folder/spilled.txt"; then exit 1; fi
grep -q 'spilled.o: kernel: a loop of 4 has 1 accesses to the stack' "$folder/spilled.txt"
if "$check" "$objdump" 5 "$folder/clean.o" "$fma" >"$folder/none.txt"; then exit 1; fi
grep -q 'clean.o: no loop with' "$folder/none.txt"
