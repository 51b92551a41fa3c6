#!/usr/bin/env python3
"""A mixture of experts: `ember bench moe` beside the block of transformers' LFM2-MoE on PyTorch, with each of its ways to run experts.

Usage: compare_moe.py EMBER [--tokens T] [--dim D] [--hidden F] [--experts E] [--top-k K] [--dtype bf16|f32] [--rounds R] [--threads N]

Both sides take turns. Prints the median milliseconds of forward, and of forward and backward, and how many times faster Ember is than the
fastest of them.
"""
import argparse
import json
import statistics
import subprocess
import time

import torch
from transformers import Lfm2MoeConfig
from transformers.models.lfm2_moe.modeling_lfm2_moe import Lfm2MoeSparseMoeBlock

WAYS = ("eager", "batched_mm", "grouped_mm")


def block(a, way, dtype):
    config = Lfm2MoeConfig(hidden_size=a.dim, moe_intermediate_size=a.hidden, num_experts=a.experts, num_experts_per_tok=a.top_k, use_expert_bias=True)
    config._experts_implementation = way
    torch.manual_seed(0)
    made = Lfm2MoeSparseMoeBlock(config).to(dtype)
    for p in made.parameters():
        torch.nn.init.normal_(p, std=0.02)
    return made


def run(made, x, backward):
    begin = time.perf_counter()
    if backward:
        y = made(x)
        (y[0] if isinstance(y, tuple) else y).float().square().mean().backward()
        seconds = time.perf_counter() - begin
        made.zero_grad(set_to_none=True)
        x.grad = None
        return seconds
    with torch.no_grad():
        made(x)
    return time.perf_counter() - begin


def ours(a, backward):
    command = [a.ember, "bench", "moe", "--json", "--dtype", a.dtype, "--threads", str(a.threads)]
    for name in ("tokens", "dim", "hidden", "experts", "top-k"):
        command += [f"--{name}", str(getattr(a, name.replace("-", "_")))]
    return json.loads(subprocess.run(command + (["--backward"] if backward else []), check=True, capture_output=True, text=True).stdout)["ms"] / 1e3


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("ember")
    for name, preset in (("tokens", 4096), ("dim", 1024), ("hidden", 512), ("experts", 16), ("top-k", 4), ("rounds", 3), ("threads", 2)):
        p.add_argument(f"--{name}", type=int, default=preset)
    p.add_argument("--dtype", choices=("bf16", "f32"), default="bf16")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    dtype = torch.bfloat16 if a.dtype == "bf16" else torch.float32
    x = torch.randn(1, a.tokens, a.dim).to(dtype)
    for backward in (False, True):
        x.requires_grad_(backward)
        times = {"ember": []}
        for _ in range(a.rounds):
            times["ember"].append(ours(a, backward))
            for way in WAYS:
                try:
                    made = block(a, way, dtype)
                    run(made, x, backward)
                    times.setdefault(way, []).extend(run(made, x, backward) for _ in range(2))
                except (RuntimeError, ValueError, NotImplementedError, AssertionError) as e:
                    times.setdefault(way + " (does not run: " + str(e).splitlines()[0][:60] + ")", [])
        medians = {k: 1e3 * statistics.median(v) for k, v in times.items() if v}
        best = min(v for k, v in medians.items() if k != "ember")
        print("forward and backward" if backward else "forward", ", ".join(f"{k} {v:.1f} ms" for k, v in medians.items()),
              f"; {best / medians['ember']:.2f} times the fastest;", ", ".join(k for k, v in times.items() if not v))


if __name__ == "__main__":
    main()
