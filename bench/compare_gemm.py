#!/usr/bin/env python3
"""Matrix products beside PyTorch's (oneDNN and MKL) and OpenBLAS's on the same machine.

All sides take turns: for each shape and number format each runs for a fraction of a second, several times around. PyTorch gets the
fastest of its ways: `mm` into a tensor that is there already, `linear` on a weight as it lies, and `linear` on a weight that oneDNN
packed beforehand. OpenBLAS (f32 only) is called directly, where its library is found. Ember packs its weights beforehand too, as it
does once a step in training and once a load in inference. Prints medians in GFLOP/s and Ember's ratio to the best of the others.

usage: bench/compare_gemm.py [--ember build/release/ember] [--threads 2] [--rounds 3] [--seconds 0.3] [--shapes 32x1536x512,...]
"""

import argparse
import ctypes
import ctypes.util
import json
import statistics
import subprocess
import time

import torch

SHAPES = """4096x1536x512 4096x512x1536 4096x512x512 4096x2048x1024 512x1536x4096 512x4608x1024 2048x2048x2048
32x1536x512 32x4608x1024 32x8192x2048 1023x1531x517 1000x1000x1000 129x4099x771 31x1537x513""".split()


def median_seconds(call, seconds):
    """Median time of a call repeated for about `seconds`, after one that warms up."""
    call()
    times, end = [], time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def torch_calls(dtype, m, n, k):
    x, w, y = torch.randn(m, k, dtype=dtype), torch.randn(n, k, dtype=dtype), torch.empty(m, n, dtype=dtype)
    calls = {"mm": lambda: torch.mm(x, w.t(), out=y), "linear": lambda: torch.nn.functional.linear(x, w)}
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(w.to_mkldnn(), m)
        calls["packed"] = lambda: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")
        calls["packed"]()
    except (RuntimeError, AttributeError):
        calls.pop("packed", None)
    return calls


class OpenBlas:
    def __init__(self, threads):
        self.library = None
        for name in ("libopenblas.so.0", ctypes.util.find_library("openblas") or ""):
            try:
                self.library = ctypes.CDLL(name) if name else None
            except OSError:
                continue
            if self.library:
                self.library.openblas_set_num_threads(threads)
                break

    def call(self, m, n, k):
        x, w, y = torch.randn(m, k), torch.randn(n, k), torch.empty(m, n)
        pointer, one = ctypes.c_void_p, ctypes.c_float
        gemm = self.library.cblas_sgemm
        gemm.argtypes = [ctypes.c_int] * 6 + [one, pointer, ctypes.c_int, pointer, ctypes.c_int, one, pointer, ctypes.c_int]
        # Row-major; A as it lies, B transposed.
        return lambda: gemm(101, 111, 112, m, n, k, 1.0, x.data_ptr(), k, w.data_ptr(), k, 0.0, y.data_ptr(), n)


def ember(program, dtype, m, n, k, threads, seconds):
    command = [program, "bench", "gemm", "--m", m, "--n", n, "--k", k, "--dtype", dtype, "--threads", threads,
               "--seconds", seconds, "--json"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--ember", default="build/release/ember")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=float, default=0.3)
    options.add_argument("--shapes", default=",".join(SHAPES))
    o = options.parse_args()
    torch.set_num_threads(o.threads)
    blas = OpenBlas(o.threads)
    print(f"{'':5} {'M x N x K':>16} {'PyTorch':>9} {'(way)':>8} {'OpenBLAS':>9} {'Ember':>9}  ratio  share of the peak")
    for name, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
        for shape in o.shapes.split(","):
            m, n, k = (int(part) for part in shape.split("x"))
            with torch.no_grad():
                theirs = torch_calls(dtype, m, n, k)
                if dtype == torch.float32 and blas.library:
                    theirs["OpenBLAS"] = blas.call(m, n, k)
                taken, ours, roofs = {way: [] for way in theirs}, [], []
                for _ in range(o.rounds):
                    for way, call in theirs.items():
                        taken[way].append(median_seconds(call, o.seconds))
                    figures = ember(o.ember, name, m, n, k, o.threads, o.seconds)
                    ours.append(figures["median"])
                    roofs.append(figures["roof"])
            rate = {way: 2e-9 * m * n * k / statistics.median(times) for way, times in taken.items()}
            mine = 2e-9 * m * n * k / statistics.median(ours)
            openblas = rate.pop("OpenBLAS", None)
            way = max(rate, key=rate.get)
            best = max(rate[way], openblas or 0)
            print(f"{name:5} {shape:>16} {rate[way]:9.0f} {way:>8} {openblas or float('nan'):9.0f} {mine:9.0f}  {mine / best:5.2f}"
                  f"  {statistics.median(roofs):.2f}", flush=True)


if __name__ == "__main__":
    main()
