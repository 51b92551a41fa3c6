"""Compares `ember forward` with transformers: logits, loss, every gradient, and logits fed in chunks.

    python tools/check_forward.py [--ember PROGRAM] [--configs N] [--seed S] [MODEL ...]

Without MODEL, N random configs of each family are drawn with random weights.  Each tensor may differ
by 1e-4 of its own largest absolute value.  Exit status: 0 all equal, 1 something differs.
"""

import argparse
import os
import subprocess
import sys
import tempfile

import reference
import torch
from safetensors.torch import load_file, save_file

TOLERANCE = 1e-4
CHUNKS = (1, 5)
# A model whose float32 values by transformers are themselves further than this from float64, or in which
# rounding could choose another expert, cannot judge anybody: another seed is drawn.
REFERENCE_ERROR = 2e-5
MARGIN = 5e-4


def ember_forward(ember, model, ids_file, out, *options):
    command = [ember, "forward", model, "--in", ids_file, "--out", out, "--dtype", "f32", *options]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
    return load_file(out)


def compare(got, expected):
    """(worst difference, its tensor), or what is missing or left over."""
    missing, surplus = sorted(set(expected) - set(got)), sorted(set(got) - set(expected))
    if missing or surplus:
        raise RuntimeError(f"missing {missing[:3]} surplus {surplus[:3]} of {len(expected)} tensors")
    for name, tensor in got.items():
        if tensor.dtype != torch.float32:
            raise RuntimeError(f"{name} is {tensor.dtype}, f32 expected")
        if tensor.shape != expected[name].shape:
            raise RuntimeError(f"{name} is {list(tensor.shape)}, {list(expected[name].shape)} expected")
    return max((reference.difference(got[n], expected[n]), n) for n in expected)


def check(ember, label, folder, ids, scratch):
    """True when the program agrees with transformers on this folder."""
    ids_file, out = os.path.join(scratch, "in.safetensors"), os.path.join(scratch, "out.safetensors")
    save_file({"input_ids": ids}, ids_file)
    model = reference.load(folder)
    expected = reference.values(model, ids.long())
    results = {}
    try:
        results["whole"] = compare(ember_forward(ember, folder, ids_file, out), {"logits": expected["logits"]})
        results["grad"] = compare(ember_forward(ember, folder, ids_file, out, "--grad"), expected)
        for n in CHUNKS:
            got = ember_forward(ember, folder, ids_file, out, "--chunk", str(n))
            results[f"chunk {n}"] = compare(got, {"logits": expected["logits"]})
    except (RuntimeError, OSError) as error:
        print(f"FAIL {label}: {error}")
        return False
    good = all(difference <= TOLERANCE for difference, _ in results.values())
    worst = "  ".join(f"{what} {d:.1e}" for what, (d, _) in results.items())
    print(f"{'ok  ' if good else 'FAIL'} {label}: {worst}  worst gradient: {results['grad'][1]}")
    return good


def draw(family, seed, folder):
    """Writes a random model that can judge; returns its settings, ids and how often another was drawn."""
    for attempt in range(50):
        number = seed + 1000 * attempt
        settings = reference.random_settings(family, number)
        generator = torch.Generator().manual_seed(number)
        batch, tokens = (int(torch.randint(low, high, (), generator=generator)) for low, high in ((1, 4), (2, 40)))
        model = reference.build(family, settings, number)
        ids = reference.random_ids(settings["vocab_size"], batch, tokens, number)
        if reference.router_margin(model, ids) < MARGIN:
            continue
        single = reference.values(model, ids)
        with reference.in_double(model):
            double = reference.values(model, ids)
        if max(reference.difference(single[k], double[k]) for k in single) > REFERENCE_ERROR:
            continue
        model.save_pretrained(folder)
        return settings, ids, attempt
    raise SystemExit(f"{family}: no seed from {seed} on gives a model that float32 can judge")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ember", default="build/release/ember", help="the program (default %(default)s)")
    parser.add_argument("--configs", type=int, default=12, help="random configs per family (default %(default)s)")
    parser.add_argument("--families", nargs="+", choices=reference.FAMILIES, default=reference.FAMILIES)
    parser.add_argument("--seed", type=int, default=1, help="the first config's number (default %(default)s)")
    parser.add_argument("--keep", metavar="DIR", help="keep the random models there instead of deleting them")
    parser.add_argument("models", nargs="*", metavar="MODEL", help="folders to compare instead of random models")
    args = parser.parse_args()
    good = total = redrawn = 0
    with tempfile.TemporaryDirectory() as scratch:
        for folder in args.models:
            vocab = reference.AutoConfig.from_pretrained(folder).vocab_size
            good += check(args.ember, folder, folder, reference.random_ids(vocab, 2, 23, args.seed), scratch)
            total += 1
        for family in () if args.models else args.families:
            for seed in range(args.seed, args.seed + args.configs):
                folder = os.path.join(args.keep or scratch, f"{family}-{seed}")
                settings, ids, attempts = draw(family, seed, folder)
                redrawn += attempts
                if not check(args.ember, f"{family} {seed} {list(ids.shape)}", folder, ids, scratch):
                    print(f"     {settings}")
                else:
                    good += 1
                total += 1
    print(f"forward: {good} of {total} models equal transformers within {TOLERANCE:g} of each tensor's largest value "
          f"({redrawn} drawn again for want of a clear reference)")
    return 0 if good == total else 1


if __name__ == "__main__":
    sys.exit(main())
