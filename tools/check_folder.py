"""Folders that Ember trained open in transformers, give the same logits there and go on training there.

    python tools/check_folder.py [--ember PROGRAM] [FOLDER ...]

Without FOLDER, Ember trains a small model of each family from random weights first.  Opening is strict: no
tensor may be missing, left over or misshapen.  Logits may differ by 1e-3.  Exit status: 0 all hold, 1 one does not.
"""

import argparse
import os
import sys
import tempfile

import compare_training
import reference
import torch
from safetensors.torch import load_file, save_file

TOLERANCE = 1e-3
STEPS = 40


def train_with_ember(ember, family, root):
    """A folder that Ember wrote at the end of a short training."""
    start, out = os.path.join(root, family + "-start"), os.path.join(root, family)
    settings = compare_training.COMMON | compare_training.SETTINGS[family]
    reference.build(family, settings, 3).save_pretrained(start)
    ids = os.path.join(root, family + ".safetensors")
    batches = reference.learnable_ids(settings["vocab_size"], STEPS, 4, 48, 3)
    save_file({"input_ids": batches.to(torch.int32)}, ids)
    recipe = reference.write_recipe(
        os.path.join(root, family + ".json"), start, ids, steps=STEPS, **compare_training.TRAIN | {"batch": 4, "seq": 48}
    )
    reference.run_ember(ember, "train", recipe, "--out", out, "--quiet")
    before, after = (load_weights(f) for f in (start, out))
    same = [name for name in before if name in after and torch.equal(before[name].float(), after[name].float())]
    still = [name for name in same if not name.endswith("expert_bias")]
    if still:
        raise RuntimeError(f"training left {len(still)} tensors as they were, {still[0]} the first")
    return out


def load_weights(folder):
    files = [f for f in os.listdir(folder) if f.endswith(".safetensors")]
    return {name: tensor for f in files for name, tensor in load_file(os.path.join(folder, f)).items()}


def go_on_training(model, vocab, steps=12):
    """First and last loss of a few steps of AdamW on one batch."""
    ids = reference.learnable_ids(vocab, 1, 4, 32, 9)[0]
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-3)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = reference.next_token_loss(model(input_ids=ids, use_cache=False).logits, ids)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses[0], losses[-1]


def check(ember, folder, scratch):
    model = reference.load(folder)
    vocab = model.config.vocab_size
    ids = reference.random_ids(vocab, 2, min(40, getattr(model.config, "max_position_embeddings", 40)), 5)
    paths = [os.path.join(scratch, name) for name in ("in.safetensors", "out.safetensors")]
    save_file({"input_ids": ids}, paths[0])
    reference.run_ember(ember, "forward", folder, "--in", paths[0], "--out", paths[1], "--dtype", "f32")
    got, expected = load_file(paths[1])["logits"], reference.values(model, ids, grad=False)["logits"]
    worst = (got - expected).abs().max().item() if got.shape == expected.shape else float("inf")
    words = "no tokenizer"
    if os.path.exists(os.path.join(folder, "tokenizer.json")):
        from transformers import AutoTokenizer

        text = "The tokenizer opens too: naïve café, 42 tests.\n"
        tokenizer = AutoTokenizer.from_pretrained(folder)
        kept = tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
        words = "tokenizer opens" if kept else "tokenizer does not give the text back"
        if not kept:
            worst = float("inf")
    first, last = go_on_training(model, vocab)
    good = worst <= TOLERANCE and last < first
    print(f"{'ok  ' if good else 'FAIL'} {os.path.basename(os.path.normpath(folder))}: {model.config.model_type} opens, logits within {worst:.1e}, "
          f"training goes on {first:.4f} -> {last:.4f}, {words}")
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ember", default="build/release/ember", help="the program (default %(default)s)")
    parser.add_argument("--families", nargs="+", choices=reference.FAMILIES, default=reference.FAMILIES)
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help="folders that Ember trained")
    args = parser.parse_args()
    good = True
    with tempfile.TemporaryDirectory() as scratch:
        for subject in args.folders or args.families:
            try:
                folder = subject if args.folders else train_with_ember(args.ember, subject, scratch)
                good = check(args.ember, folder, scratch) and good
            except (RuntimeError, ValueError, OSError) as error:
                print(f"FAIL {subject}: {error}")
                good = False
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
