#!/usr/bin/env python3
"""Compares `ember tokenizer` with Hugging Face's tokenizers and transformers, on this machine.

1. Their tokenizers in Ember: for every pipeline of tokenizer_cases.py, ids of adversarial texts and of all code points.
2. Ember's tokenizers there: one is trained by Ember on the given text, loaded by both libraries, and gives the same
   ids; its merges are compared with those of Hugging Face's trainer.
3. Speed: encoding the text on one thread, and training, beside theirs.
Usage: compare_tokenizer.py --ember PROGRAM [--text FILE...] [--texts N]; exit status 1 if ids differ.
"""
import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("RAYON_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from tokenizers import Tokenizer  # noqa: E402

import make_tokenizer_goldens as goldens  # noqa: E402
import tokenizer_cases as cases  # noqa: E402


def ember(program, *words, text=b""):
    done = subprocess.run([program, "tokenizer", *map(str, words)], input=text, capture_output=True)
    if done.returncode:
        sys.exit(f"ember tokenizer {' '.join(map(str, words))}: {done.stderr.decode()}")
    return done.stdout


def ids_of(program, folder, text, *flags):
    return [int(i) for i in ember(program, "encode", folder, *flags, text=text).split()]


def compare_ids(program, name, folder, tokenizer, texts):
    wrong = 0
    for text in texts:
        ids, plain, _ = cases.expect(tokenizer, text)
        if not text:
            ids = []  # Ember's command prints an empty line for no input
        for expected, flags in ((ids, ()), (plain, ("--no-special",))):
            found = ids_of(program, folder, text, *flags)
            if found != expected:
                wrong += 1
                print(f"{name}: {text[:60]!r}{' '.join(flags)}\n  ember {found[:40]}\n  theirs {expected[:40]}")
    print(f"{name:12} {len(texts)} texts, with and without special tokens: {wrong} differ")
    return wrong


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ember", required=True)
    parser.add_argument("--text", nargs="*", default=[])
    parser.add_argument("--texts", type=int, default=200, help="random texts beside the fixed ones")
    parser.add_argument("--vocab", type=int, default=8192)
    a = parser.parse_args()
    texts = cases.TEXTS + cases.random_texts(a.texts, 20) + [text for _, text in cases.planes()]
    wrong = 0
    with tempfile.TemporaryDirectory() as temporary:
        root = pathlib.Path(temporary)
        for name, make in cases.TOKENIZERS.items():
            tokenizer = make()
            folder = root / name
            folder.mkdir()
            tokenizer.save(str(folder / "tokenizer.json"))
            wrong += compare_ids(a.ember, name, folder, tokenizer, texts)

        corpus = root / "corpus.txt"
        data = b"".join(pathlib.Path(f).read_bytes() for f in a.text) or "\n".join(cases.PROSE * 200).encode()
        data = data.decode("utf-8", errors="replace").encode()
        corpus.write_bytes(data)
        trained = root / "trained"
        start = time.time()
        ember(a.ember, "train", "--data", corpus, "--out", trained, "--vocab", a.vocab, "--threads", 1)
        seconds = time.time() - start
        wrong += compare_ids(a.ember, "trained", trained, Tokenizer.from_file(str(trained / "tokenizer.json")), texts)
        try:
            from transformers import AutoTokenizer
        except ImportError:
            print("transformers is not installed: the folder is not tried there")
        else:
            theirs = AutoTokenizer.from_pretrained(str(trained))
            assert (theirs.pad_token_id, theirs.bos_token_id, theirs.eos_token_id) == (0, 1, 2)
            for text in texts[1:60]:
                if theirs(text.decode("utf-8", errors="replace"))["input_ids"] != ids_of(a.ember, trained, text):
                    wrong += 1
                    print(f"transformers: {text[:60]!r} differs")

        start = time.time()
        reference = goldens.train(data.decode(), a.vocab)
        theirs_seconds = time.time() - start
        mine = goldens.merges_of(Tokenizer.from_file(str(trained / "tokenizer.json")))
        merges = goldens.merges_of(reference)
        same = next((i for i, (x, y) in enumerate(zip(mine, merges)) if x != y), min(len(mine), len(merges)))
        print(f"training on {len(data) / 1e6:.1f} MB: {seconds:.1f} s, theirs {theirs_seconds:.1f} s; the first {same} of "
              f"{len(merges)} merges are equal, {len(set(mine) & set(merges))} in all")

        # Two lengths, so that starting the program and reading the tokenizer drop out. No piece goes over a line.
        half = data[: data.rfind(b"\n", 0, len(data) // 2) + 1]
        ember(a.ember, "encode", trained, text=half)
        times = []
        for text in (half, data):
            start = time.time()
            ember(a.ember, "encode", trained, text=text)
            times.append(time.time() - start)
        rate = (len(data) - len(half)) / 1e6 / max(times[1] - times[0], 1e-9)
        string = half[: 4 << 20].decode("utf-8", errors="replace")
        start = time.time()
        for i in range(0, len(string), 100_000):
            reference.encode(string[i : i + 100_000])
        print(f"encoding: {rate:.1f} MB/s with printing ids, theirs {len(string) / 1e6 / (time.time() - start):.1f} MB/s without")
    print("equal" if not wrong else f"{wrong} differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
