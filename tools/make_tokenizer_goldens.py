#!/usr/bin/env python3
"""Writes tests/golden/tokenizer/: what Hugging Face `tokenizers` makes of adversarial texts.

texts.json       the texts, in hexadecimal
NAME/            a tokenizer.json and expected.json: `ids` of every text with special tokens, `plain` without (null:
                 the same), `decoded` (hexadecimal; null: the text itself, repaired; false: not comparable), `planes`: for every block of 4096
                 code points the FNV-1a hash of both lists of ids of a text that has all of them
trained/         a text and the tokenizer that Hugging Face's trainer makes of it with LFM2's pattern
Usage: make_tokenizer_goldens.py [DIRECTORY]
"""
import json
import pathlib
import sys

import tokenizers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

import tokenizer_cases as cases

RANDOM_TEXTS = 160


def fnv(ids):
    h = 0xCBF29CE484222325
    for i in ids:
        for b in i.to_bytes(4, "little"):
            h = (h ^ b) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return h


def expected(tokenizer, texts):
    ids, plain, decoded = [], [], []
    for text in texts:
        with_special, without, back = cases.expect(tokenizer, text)
        repaired = text.decode("utf-8", errors="replace")
        ids.append(with_special)
        plain.append(None if without == with_special else without)
        accented = any(tokenizer.token_to_id(t) is not None for t in ("caf\u00e9", "e\u0301clair"))
        if accented and "\ufffd" in back and "\ufffd" not in repaired:
            # tokenizers 0.23 takes an added token such as "café" for bytes of the byte-level alphabet when it
            # decodes, and loses the é. Ember gives back the token's text.
            back = None
        decoded.append(False if back is None else None if back == repaired else back.encode().hex())
    planes = []
    for _, text in cases.planes():
        with_special, without, _ = cases.expect(tokenizer, text)
        planes.append("%016x" % fnv(with_special + without))
    return {"tokenizers": tokenizers.__version__, "ids": ids, "plain": plain, "decoded": decoded, "planes": planes}


def train(text, vocab, min_frequency=2):
    """What Ember's trainer should make of the text."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([cases.split(Regex(cases.LLAMA3)), cases.byte_level(regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        min_frequency=min_frequency,
        special_tokens=["<|pad|>", "<|startoftext|>", "<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text], trainer)
    return tokenizer


def merges_of(tokenizer):
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in merges]


def main():
    root = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent / "tests/golden/tokenizer"
    root.mkdir(parents=True, exist_ok=True)
    texts = cases.TEXTS + cases.random_texts(RANDOM_TEXTS, 7)
    (root / "texts.json").write_text(json.dumps([t.hex() for t in texts], indent=0) + "\n")
    for name, make in cases.TOKENIZERS.items():
        tokenizer = make()
        folder = root / name
        folder.mkdir(exist_ok=True)
        text = tokenizer.to_str(pretty=False)
        if name == "pairs_form":  # merges as pairs; the others in the older form, as texts
            (folder / "tokenizer.json").write_text(text + "\n")
        else:
            file = json.loads(text)
            file["model"]["merges"] = [" ".join(m) for m in file["model"]["merges"]]
            (folder / "tokenizer.json").write_text(json.dumps(file, ensure_ascii=False, separators=(",", ":")) + "\n")
        (folder / "expected.json").write_text(json.dumps(expected(tokenizer, texts), separators=(",", ":")) + "\n")
    folder = root / "trained"
    folder.mkdir(exist_ok=True)
    text = "\n".join(cases.PROSE * 2 + ["aaa aaaa aaaaa aaaaaaa bababab", "\u0915\u094d\u0937 \U0001f600\U0001f600 \r\n\r\n x=  10;"] * 3)
    tokenizer = train(text, 700)
    merges = merges_of(tokenizer)
    # Where two merges make the same token, the reference counts the token's pairs wrongly: such texts are no measure.
    assert len({a + b for a, b in merges}) == len(merges)
    (folder / "text.txt").write_text(text)
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=False) + "\n")


if __name__ == "__main__":
    main()
