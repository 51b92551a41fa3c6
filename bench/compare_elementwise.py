#!/usr/bin/env python3
"""What memory bounds, beside PyTorch eager and compiled on the same machine, f32.

Softmax, norms, gates, rotary positions, AdamW, and cross-entropy over 65,536 words with its output matrix. Both sides take turns:
in each round PyTorch runs its modes a few times, then Ember does, several times around. Rows are as many as no cache holds;
the C library keeps PyTorch's memory, in huge pages, instead of giving it back and faulting it in again (which is 10 times slower).
Rates count what has to be read and written once. Prints medians and the ratio to PyTorch's faster mode.

usage: bench/compare_elementwise.py [--ember build/release/ember] [--threads 2] [--rounds 3] [--only NAME,...]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F

WIDTH, HEAD, PARAMETERS = 512, 64, 30_000_000
VOCABULARY, TOKENS = 65536, 1024


MEMORY = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184"


def rows(width):
    return (48 << 20) // 4 // width


class Forward:
    """f(inputs), and how many floats an element of the output has to move."""

    def __init__(self, function, inputs, floats, backward_floats):
        self.function, self.inputs = function, inputs
        self.floats, self.backward_floats = floats, backward_floats


def softmax():
    return Forward(lambda x: F.softmax(x, -1), [torch.randn(rows(WIDTH), WIDTH)], 2, 3)


def rmsnorm():
    w = torch.randn(WIDTH, requires_grad=True)
    return Forward(lambda x: F.rms_norm(x, (WIDTH,), w, 1e-5), [torch.randn(rows(WIDTH), WIDTH)], 2, 3)


def layernorm():
    w, b = torch.randn(WIDTH, requires_grad=True), torch.randn(WIDTH, requires_grad=True)
    return Forward(lambda x: F.layer_norm(x, (WIDTH,), w, b, 1e-5), [torch.randn(rows(WIDTH), WIDTH)], 2, 3)


def gated():
    width = 3 * WIDTH
    return Forward(lambda g, u: F.silu(g) * u, [torch.randn(rows(width), width), torch.randn(rows(width), width)], 3, 5)


def rope():
    T = rows(WIDTH)
    angle = torch.outer(torch.arange(T, dtype=torch.float32), 10000 ** (-torch.arange(0, HEAD, 2) / HEAD))
    cosine, sine = angle.cos()[:, None], angle.sin()[:, None]

    def turn(x):
        a, b = x.chunk(2, -1)
        return torch.cat((a * cosine - b * sine, b * cosine + a * sine), -1)

    return Forward(turn, [torch.randn(T, WIDTH // HEAD, HEAD)], 2, 2)


def clock(function, repeats):
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


class Pair:
    """Seconds of the forward alone and of the backward alone, for one way of running PyTorch."""

    def __init__(self, case, compiled):
        self.function = torch.compile(case.function) if compiled else case.function
        self.inputs = [x.detach().clone().requires_grad_() for x in case.inputs]
        self.gradient = torch.randn_like(self.function(*self.inputs))
        self.measure(2)

    def measure(self, repeats):
        forward, backward = [], []
        for _ in range(repeats):
            for x in self.inputs:
                x.grad = None
            start = time.perf_counter()
            y = self.function(*self.inputs)
            middle = time.perf_counter()
            y.backward(self.gradient)
            forward.append(middle - start)
            backward.append(time.perf_counter() - middle)
        return statistics.median(forward), statistics.median(backward)


class AdamW:
    def __init__(self, compiled):
        self.parameter = torch.nn.Parameter(torch.randn(PARAMETERS))
        self.parameter.grad = torch.randn(PARAMETERS)
        self.optimizer = torch.optim.AdamW([self.parameter], lr=1e-4, fused=not compiled, foreach=False)
        self.step = torch.compile(self.optimizer.step) if compiled else self.optimizer.step
        self.measure(2)

    def measure(self, repeats):
        return clock(self.step, repeats), None


class CrossEntropy:
    """The loss of a head and all gradients."""

    def __init__(self, compiled):
        self.x = torch.randn(TOKENS, WIDTH, requires_grad=True)
        self.w = (torch.randn(VOCABULARY, WIDTH) / WIDTH**0.5).requires_grad_()
        self.target = torch.randint(VOCABULARY, (TOKENS,))

        def loss(x, w):
            return F.cross_entropy(x @ w.T, self.target)

        self.loss = torch.compile(loss) if compiled else loss
        self.measure(1)

    def once(self):
        self.x.grad = self.w.grad = None
        self.loss(self.x, self.w).backward()

    def measure(self, repeats):
        return clock(self.once, repeats), None


def ember(o, *words):
    command = [o.ember, "bench", *words, "--threads", o.threads, "--seconds", 1, "--json"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["kernels"]


def ember_seconds(kernels, name):
    return kernels[name]["ms"] / 1e3


ELEMENTWISE = {"softmax": softmax, "rmsnorm": rmsnorm, "layernorm": layernorm, "gated": gated, "rope": rope}
WHOLE = {"adamw": (AdamW, ["optimizer", "--parameters", PARAMETERS], "adamw"),
         "cross_entropy": (CrossEntropy, ["cross_entropy", "--vocab", VOCABULARY, "--tokens", TOKENS, "--dim", WIDTH, "--dtype", "f32"],
                           "loss_with_gradients")}


def report(name, eager, compiled, ours, gigabytes):
    figures = [statistics.median(each) for each in (eager, compiled, ours)]
    rates = "".join(f" {1e3 * s:9.2f} ms" + (f" {gigabytes / s:6.1f}" if gigabytes else " " * 7) for s in figures)
    print(f"{name:20}{rates}  {min(figures[:2]) / figures[2]:6.2f}", flush=True)


def compare_pass(o, name, make):
    case = make()
    modes = [Pair(case, compiled) for compiled in (False, True)]
    width = 3 * WIDTH if name == "gated" else WIDTH
    theirs, ours = [[], []], []
    for _ in range(o.rounds):
        for i, mode in enumerate(modes):
            theirs[i].append(mode.measure(5))
        kernels = ember(o, "elementwise", "--dim", width)
        ours.append((ember_seconds(kernels, name), ember_seconds(kernels, name + "_backward")))
        scale = case.inputs[0].numel() / (((48 << 20) // 4 // width + 1) * width)
    for i, (label, floats) in enumerate(((name, case.floats), (name + "_backward", case.backward_floats))):
        report(label, [t[i] for t in theirs[0]], [t[i] for t in theirs[1]], [t[i] * scale for t in ours],
               4e-9 * floats * case.inputs[0].numel())


def compare_whole(o, name):
    make, words, kernel = WHOLE[name]
    modes = [make(compiled) for compiled in (False, True)]
    theirs, ours = [[], []], []
    for _ in range(o.rounds):
        for i, mode in enumerate(modes):
            theirs[i].append(mode.measure(3)[0])
        ours.append(ember_seconds(ember(o, *words), kernel))
    report(name, theirs[0], theirs[1], ours, 28e-9 * PARAMETERS if name == "adamw" else 0)


def main():
    if os.environ.get("GLIBC_TUNABLES") != MEMORY:
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "GLIBC_TUNABLES": MEMORY})
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--ember", default="build/release/ember")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--only", default=",".join([*ELEMENTWISE, *WHOLE]))
    o = options.parse_args()
    torch.set_num_threads(o.threads)
    torch.manual_seed(1)
    print(f"{'':20}{'eager':>12} {'GB/s':>6}{'compiled':>13} {'GB/s':>6}{'Ember':>13} {'GB/s':>6}   ratio")
    for name in o.only.split(","):
        if name in WHOLE:
            compare_whole(o, name)
        else:
            compare_pass(o, name, ELEMENTWISE[name])


if __name__ == "__main__":
    main()
