#!/usr/bin/env python3
"""Attention, forward and backward, beside PyTorch's scaled_dot_product_attention on the same machine.

Both sides take turns: for each length and number format PyTorch runs a few times, then Ember, several times around. Heads are
grouped (8 query heads on 2 key heads of 64), attention is causal, and the number of tokens is the same for every length. PyTorch
gets the faster of its two ways to group heads. Prints medians and the ratio.

usage: bench/compare_attention.py [--ember build/release/ember] [--threads 2] [--tokens 4096] [--rounds 3]
"""

import argparse
import json
import statistics
import subprocess
import time

import torch

HEADS, GROUPS, WIDTH = 8, 2, 64


def torch_seconds(dtype, batch, length, repeats):
    shape = (batch, HEADS, length, WIDTH)
    q = torch.randn(shape, dtype=dtype, requires_grad=True)
    k, v = (torch.randn(batch, GROUPS, length, WIDTH, dtype=dtype, requires_grad=True) for _ in range(2))
    gradient = torch.randn(shape, dtype=dtype)
    attention = torch.nn.functional.scaled_dot_product_attention

    def grouped():
        return attention(q, k, v, is_causal=True, enable_gqa=True)

    def repeated():
        times = HEADS // GROUPS
        return attention(q, k.repeat_interleave(times, 1), v.repeat_interleave(times, 1), is_causal=True)

    best = float("inf")
    for way in (grouped, repeated):
        seconds = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            way().backward(gradient)
            seconds.append(time.perf_counter() - start)
        best = min(best, statistics.median(seconds[1:]))
    return best


def ember_seconds(program, dtype, batch, length, threads):
    command = [program, "bench", "attention", "--batch", batch, "--length", length, "--heads", HEADS, "--kv-heads", GROUPS,
               "--head-dim", WIDTH, "--dtype", dtype, "--threads", threads, "--backward", "--json"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["median"]


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--ember", default="build/release/ember")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--tokens", type=int, default=4096)
    options.add_argument("--rounds", type=int, default=3)
    o = options.parse_args()
    torch.set_num_threads(o.threads)
    print(f"{'':6} {'length':>6} {'PyTorch':>14} {'Ember':>14}  ratio   (GFLOP/s)")
    for name, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
        for length in (512, 1024, 2048, 4096):
            batch = max(1, o.tokens // length)
            theirs, ours = [], []
            for _ in range(o.rounds):
                theirs.append(torch_seconds(dtype, batch, length, 2))
                ours.append(ember_seconds(o.ember, name, batch, length, o.threads))
            # Two products forward and five backward, over the keys at and before each token.
            flops = 2 * 7 * batch * HEADS * WIDTH * length * (length + 1) / 2
            a, b = statistics.median(theirs), statistics.median(ours)
            print(f"{name:6} {length:6} {flops / a / 1e9:14.0f} {flops / b / 1e9:14.0f}  {a / b:5.2f}", flush=True)


if __name__ == "__main__":
    main()
