"""Trains the same weights on the same batches with Ember and with PyTorch and compares the loss curves.

    python tools/compare_training.py [--ember PROGRAM] [--steps 200] [--families lfm2 lfm2_moe ...] [--out FILE.json]

float32, AdamW with decoupled decay on matrices alone, clipping to norm 1, warm-up and cosine; the routers'
selection bias stays as it is.  Each step's two losses may differ by 1 % of PyTorch's.  Exit status: 0 they
stay together, 1 they part.
"""

import argparse
import json
import math
import os
import sys
import tempfile
import time

import reference
import torch
from safetensors.torch import save_file

TOLERANCE = 0.01
BATCH, TOKENS, VOCAB = 4, 64, 96
TRAIN = {
    "batch": BATCH,
    "seq": TOKENS,
    "lr": 3e-3,
    "schedule": "cosine",
    "warmup": 20,
    "min_lr_ratio": 0.1,
    "dtype": "f32",
    "weight_decay": 0.1,
    "beta1": 0.9,
    "beta2": 0.95,
    "eps": 1e-8,
    "clip": 1.0,
}
COMMON = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
HYBRID = ["conv", "conv", "full_attention", "conv"]
SETTINGS = {
    "lfm2": {"intermediate_size": 128, "block_auto_adjust_ff_dim": False, "layer_types": HYBRID},
    "lfm2_moe": {
        "intermediate_size": 128,
        "moe_intermediate_size": 48,
        "num_dense_layers": 1,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "layer_types": HYBRID,
    },
    "lfm3": {
        "intermediate_size": 128,
        "head_dim": 16,
        "sliding_window": 16,
        "layer_types": ["conv", "sliding_attention", "conv", "full_attention"],
    },
    "llama": {"intermediate_size": 128},
}


def learning_rate(step, steps):
    """Of step 0, 1, ...: linear warm-up that reaches the peak at its last step, then cosine to the floor."""
    peak, warmup, floor = TRAIN["lr"], TRAIN["warmup"], TRAIN["min_lr_ratio"]
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / (steps - warmup)
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))


def train_torch(folder, ids):
    model = reference.load(folder)  # evaluation mode: none of these families has dropout to switch on
    groups = reference.decayed_groups(model, TRAIN["weight_decay"])
    optimizer = torch.optim.AdamW(groups, lr=TRAIN["lr"], betas=(TRAIN["beta1"], TRAIN["beta2"]), eps=TRAIN["eps"])
    losses = []
    for step, batch in enumerate(ids):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, len(ids))
        optimizer.zero_grad()
        loss = reference.next_token_loss(model(input_ids=batch, use_cache=False).logits, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), TRAIN["clip"])
        optimizer.step()
        losses.append(loss.item())
    return losses


def train_ember(ember, folder, ids, scratch, extra):
    data = os.path.join(scratch, "ids.safetensors")
    save_file({"input_ids": ids.to(torch.int32)}, data)
    recipe = reference.write_recipe(os.path.join(scratch, "recipe.json"), folder, data, steps=len(ids), **TRAIN)
    out = os.path.join(scratch, "trained")
    reference.run_ember(ember, "train", recipe, "--out", out, "--quiet", *extra)
    with open(os.path.join(out, "logs", "train.jsonl")) as f:
        lines = [json.loads(line) for line in f if line.strip()]
    steps = [line for line in lines if "loss" in line and "lr" in line]
    return [line["loss"] for line in steps], [line["lr"] for line in steps]


def compare(ember, family, steps, seed, extra):
    config = reference.AutoConfig.for_model(family, **COMMON, **SETTINGS[family])
    torch.manual_seed(seed)
    model = reference.eager(reference.AutoModelForCausalLM.from_config(config, **reference.EAGER))
    ids = reference.learnable_ids(VOCAB, steps, BATCH, TOKENS, seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = os.path.join(scratch, "start")
        model.save_pretrained(folder)
        begin = time.perf_counter()
        with reference.one_thread():
            expected = train_torch(folder, ids)
        middle = time.perf_counter()
        got, rates = train_ember(ember, folder, ids, scratch, extra)
        end = time.perf_counter()
    result = {"family": family, "steps": steps, "torch": expected, "ember": got, "torch_s": middle - begin, "ember_s": end - middle}
    if len(got) != len(expected):
        print(f"FAIL {family}: the log has {len(got)} steps, {len(expected)} expected")
        return result | {"good": False}
    apart = [abs(g - e) / e if math.isfinite(g) else math.inf for g, e in zip(got, expected)]
    worst = max(range(steps), key=apart.__getitem__)
    rate = max(abs(r - learning_rate(i, steps)) for i, r in enumerate(rates)) / TRAIN["lr"]
    fell = got[-1] < 0.75 * got[0]  # else the curves show nothing
    good = apart[worst] <= TOLERANCE and fell
    print(f"{'ok  ' if good else 'FAIL'} {family}: loss {got[0]:.4f} -> {got[-1]:.4f} (PyTorch {expected[0]:.4f} -> {expected[-1]:.4f}), "
          f"largest difference {100 * apart[worst]:.4f} % at step {worst + 1}, learning rate within {rate:.1e} of the peak")
    return result | {"good": good, "worst": apart[worst]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ember", default="build/release/ember", help="the program (default %(default)s)")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--families", nargs="+", choices=sorted(SETTINGS), default=["lfm2", "lfm2_moe"])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", metavar="FILE", help="write both curves as JSON")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="passed on to `ember train`")
    args = parser.parse_args()
    extra = [word for value in args.set for word in ("--set", value)]
    results = [compare(args.ember, family, args.steps, args.seed, extra) for family in args.families]
    if args.out:
        with open(args.out, "w") as f:
            json.dump(results, f)
    return 0 if all(r["good"] for r in results) else 1


if __name__ == "__main__":
    sys.exit(main())
