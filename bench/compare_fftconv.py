#!/usr/bin/env python3
"""The gated causal long convolution beside PyTorch's rfft and irfft, and beside FFTW planned for it, on the same machine.

The sides take turns: for each length PyTorch, FFTW and Ember run a few times, several times around. PyTorch's is what Hyena's
reference code does: y = post * irfft(rfft(u * pre, 2L) * rfft(k, 2L))[:L], [B, H, L]. FFTW (forward alone; fftconv_fftw.c, built here
against libfftw3) has its plans by FFTW_MEASURE and the kernel's spectrum beforehand, Ember keeps the spectrum as it does in inference.
Memory is the growth of the peak resident size over what inputs, outputs and gradients take, each side in a process of its own.
Prints medians in nanoseconds an element (time / B H L) and ratios.

usage: bench/compare_fftconv.py [--ember build/release/ember] [--threads 2] [--rounds 3] [--lengths 256,1024,...]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

# length: sequences and channels
SHAPES = {256: (16, 256), 1024: (4, 256), 4096: (2, 256), 8192: (2, 128), 65536: (2, 64), 1048576: (2, 16)}
HERE = os.path.dirname(os.path.abspath(__file__))


def torch_tensors(batch, channels, length, backward):
    import torch

    u, pre, post = (torch.randn(batch, channels, length, requires_grad=backward) for _ in range(3))
    k = torch.randn(channels, length, requires_grad=backward)
    return u, pre, post, k, torch.randn(batch, channels, length)


def torch_pass(tensors, backward):
    import torch

    u, pre, post, k, gradient = tensors
    length = u.shape[-1]
    spectrum = torch.fft.rfft(u * pre, n=2 * length) * torch.fft.rfft(k, n=2 * length)
    y = post * torch.fft.irfft(spectrum, n=2 * length)[..., :length]
    if backward:
        y.backward(gradient)
        for t in (u, pre, post, k):
            t.grad = None


def torch_seconds(shape, length, backward, seconds):
    tensors = torch_tensors(*shape, length, backward)
    times, limit = [], None
    while limit is None or len(times) < 3 or time.perf_counter() < limit:
        start = time.perf_counter()
        torch_pass(tensors, backward)
        if limit is None:
            limit = time.perf_counter() + seconds  # the first does not count
        else:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def resident(key):
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith(key))


def torch_memory(shape, length, backward):
    """Runs in a process of its own: bytes beside inputs, output and their gradients."""
    import torch

    torch_pass(torch_tensors(1, 2, 64, backward), backward)
    tensors = torch_tensors(*shape, length, backward)
    before = resident("VmRSS")
    torch_pass(tensors, backward)
    elements = shape[0] * shape[1] * length
    own = elements + (3 * elements + shape[1] * length if backward else 0)
    return max(resident("VmHWM") - before - 4 * own, 0)


def ember(program, threads, shape, length, backward, seconds):
    command = [program, "bench", "fftconv", "--batch", str(shape[0]), "--channels", str(shape[1]), "--length", str(length)]
    command += ["--gated", "--threads", str(threads), "--seconds", str(seconds), "--json"] + ["--backward"] * backward
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--ember", default="build/release/ember")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--seconds", type=float, default=0.3)
    p.add_argument("--lengths", default=",".join(map(str, SHAPES)))
    p.add_argument("--memory-of-torch", nargs=4, type=int, help=argparse.SUPPRESS)
    a = p.parse_args()
    import torch

    torch.set_num_threads(a.threads)
    if a.memory_of_torch:
        batch, channels, length, backward = a.memory_of_torch
        print(torch_memory((batch, channels), length, bool(backward)))
        return
    with tempfile.TemporaryDirectory() as folder:
        fftw = os.path.join(folder, "fftconv_fftw")
        build = ["cc", "-O3", "-march=native", "-o", fftw, os.path.join(HERE, "fftconv_fftw.c"), "-lfftw3f", "-lm", "-lpthread"]
        if subprocess.run(build).returncode:
            sys.exit("FFTW is needed: apt install libfftw3-dev")
        print(f"{'L':>8} {'B x H':>9} {'pass':>5} {'Ember':>8} {'PyTorch':>8} {'ratio':>6} {'FFTW':>7} {'ratio':>6} "
              f"{'MiB':>7} {'PyTorch':>8}")
        for length in map(int, a.lengths.split(",")):
            shape = SHAPES[length]
            elements = shape[0] * shape[1] * length
            for backward in (False, True):
                times = {"torch": [], "fftw": [], "ember": []}
                memory = 0
                for _ in range(a.rounds):
                    times["torch"].append(1e9 * torch_seconds(shape, length, backward, a.seconds) / elements)
                    if not backward:
                        arguments = list(map(str, [*shape, length, 1, a.threads, a.seconds]))
                        times["fftw"].append(float(subprocess.run([fftw] + arguments, check=True, capture_output=True, text=True).stdout))
                    measured = ember(a.ember, a.threads, shape, length, backward, a.seconds)
                    times["ember"].append(measured["ns_per_element"])
                    memory = measured["extra_bytes"]
                asked = [sys.executable, os.path.abspath(__file__), "--threads", str(a.threads), "--memory-of-torch"]
                asked += list(map(str, [*shape, length, int(backward)]))
                torch_bytes = int(subprocess.run(asked, check=True, capture_output=True, text=True).stdout)
                m = {k: statistics.median(v) if v else float("nan") for k, v in times.items()}
                print(f"{length:>8} {shape[0]:>4} x {shape[1]:<3}{'f+b' if backward else 'f':>5} {m['ember']:>8.2f} {m['torch']:>8.2f} "
                      f"{m['torch'] / m['ember']:>6.1f} {m['fftw']:>7.2f} {m['fftw'] / m['ember']:>6.1f} {memory / 2**20:>7.0f} "
                      f"{torch_bytes / 2**20:>8.0f}", flush=True)


if __name__ == "__main__":
    main()
