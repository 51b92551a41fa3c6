#!/usr/bin/env python3
"""Mamba and Mamba-2 beside transformers: reading a prompt, and decoding, in turns.

Random weights in the shapes of the published 130M models, float32 on both sides, and Ember's bf16 besides. transformers runs what it
has without CUDA: Mamba's scan as a loop over the tokens, Mamba-2's by chunks of products. Decoding is a token at a time from a state that
has read 64. Both are measured inside their processes; medians over the rounds. With --mamba-c, a program that prints tokens a second
("achieved tok/s: N") when run with the rest of its command line is measured in the same turns, on one thread as it is.

usage: bench/compare_mamba.py [--ember build/release/ember] [--tokens 512] [--rounds 3] [--threads 2] [--models mamba,mamba2]
                              [--mamba-c "PROGRAM MODEL -n 200 ..."]
Needs torch and transformers.
"""

import argparse
import json
import pathlib
import re
import statistics
import subprocess
import tempfile
import time

import torch
from transformers import Mamba2Config, Mamba2ForCausalLM, MambaConfig, MambaForCausalLM

SEEN = 64


def models(wanted):
    shape = dict(hidden_size=768, num_hidden_layers=24, tie_word_embeddings=True)
    all_models = {
        "mamba": (MambaForCausalLM, lambda: MambaConfig(vocab_size=50280, **shape)),
        "mamba2": (Mamba2ForCausalLM, lambda: Mamba2Config(vocab_size=50288, num_heads=24, head_dim=64, n_groups=1, **shape)),
    }
    return {name: all_models[name] for name in wanted}


def their_prefill(model, tokens):
    ids = torch.randint(0, 50000, (1, tokens))
    with torch.no_grad():
        start = time.perf_counter()
        model(ids, logits_to_keep=1)
        return tokens / (time.perf_counter() - start)


def their_decode(model, tokens=16):
    ids = torch.randint(0, 50000, (1, SEEN))
    with torch.no_grad():
        start = time.perf_counter()
        model.generate(ids, max_new_tokens=1, min_new_tokens=1, do_sample=False)
        one = time.perf_counter()
        model.generate(ids, max_new_tokens=1 + tokens, min_new_tokens=1 + tokens, do_sample=False)
        end = time.perf_counter()
    return tokens / ((end - one) - (one - start))


def ours(ember, what, folder, dtype, threads, *options):
    command = [ember, "bench", what, folder, "--dtype", dtype, "--threads", str(threads), "--seconds", "2", "--json", *options]
    out = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(out.stdout)["tokens_per_s"]


def mamba_c(command):
    out = subprocess.run(command, shell=True, check=True, capture_output=True, text=True)
    return float(re.search(r"tok/s: *([0-9.]+)", out.stdout + out.stderr).group(1))


def compare(name, make, config, args, folder):
    torch.manual_seed(0)
    model = make(config()).eval()
    model.save_pretrained(folder)
    figures = {}

    def add(key, value):
        figures.setdefault(key, []).append(value)

    for _ in range(args.rounds):
        torch.set_num_threads(args.threads)
        add("prefill transformers", their_prefill(model, args.tokens))
        add("decode transformers", their_decode(model))
        for dtype in ("f32", "bf16"):
            add(f"prefill ember {dtype}", ours(args.ember, "prefill", folder, dtype, args.threads, "--tokens", str(args.tokens)))
            add(f"decode ember {dtype}", ours(args.ember, "decode", folder, dtype, args.threads, "--context", str(SEEN)))
            add(f"decode, 1 thread, ember {dtype}", ours(args.ember, "decode", folder, dtype, 1, "--context", str(SEEN)))
        if args.mamba_c and name == "mamba":
            add("decode, 1 thread, mamba.c", mamba_c(args.mamba_c))
    print(f"{name}: tokens a second, {args.threads} threads, prompt of {args.tokens}")
    for key in sorted(figures):
        theirs = next((figures[k] for k in figures if key.rsplit(" ember", 1)[0] == k.rsplit(" ", 1)[0] and "ember" not in k), None)
        ratio = f"  {statistics.median(figures[key]) / statistics.median(theirs):7.2f} x" if theirs and "ember" in key else ""
        print(f"  {key:32} {statistics.median(figures[key]):9.1f}  ({min(figures[key]):.1f} to {max(figures[key]):.1f}){ratio}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ember", default="build/release/ember")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--models", default="mamba,mamba2")
    parser.add_argument("--mamba-c")
    args = parser.parse_args()
    for name, (make, config) in models(args.models.split(",")).items():
        with tempfile.TemporaryDirectory() as folder:
            compare(name, make, config, args, str(pathlib.Path(folder)))


if __name__ == "__main__":
    main()
