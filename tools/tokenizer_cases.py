"""Tokenizers of every pipeline that Ember reads, made with Hugging Face `tokenizers`, and texts that tell
wrong ones apart. Used by compare_tokenizer.py and make_tokenizer_goldens.py."""
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")
CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
GPT2_SHORT = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

PROSE = [
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness.",
    "Don't say that they'll come; I've seen they're late, and she'd rather we'd wait. It's HERS, THEY'RE THEIRS.",
    "#include <stdio.h>\nint main(void)\n{\n    for (int i = 0; i < 100; i++)\n        printf(\"%d\\n\", i);\n\treturn 0;\n}\n",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. Ça a été déjà vu, naïve façade.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю. Η γρήγορη καφέ αλεπού.",
    "天地玄黄,宇宙洪荒。日月盈昃,辰宿列张。いろはにほへと ちりぬるを。키스의 고유조건은 입술끼리 만나야 하고",
    "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق. सभी मनुष्यों को गौरव और अधिकारों के मामले में",
    "ACGTACGTTAGCCGATTACAGATTACACCGGTTAACCGGATATCGCGATATTACCGG ATGCCCTTTAAAGGG",
    "On 2024-05-17 at 13:45:59, 1234567 users paid $1,234.56 (about 3.14159 times 1e10) to 192.168.0.1.",
    "😀😃😄 👩‍👩‍👧‍👦 🏳️‍🌈 e\u0301 n\u0303 — “quoted” ‘single’ … § ½ ² ① Ⅷ",
]


def byte_level(prefix=False, regex=True):
    return pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=regex)


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(pattern, behavior, invert)


def bos_template(bos, bos_id):
    return processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, bos_id)])


def build(pre, specials=(), normalizer=None, vocab=700, alphabet=True, **model):
    tokenizer = Tokenizer(models.BPE(**model))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre if not isinstance(pre, list) else pre_tokenizers.Sequence(pre)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if alphabet else [],
        show_progress=False,
    )
    tokenizer.train_from_iterator(PROSE, trainer)
    return tokenizer


def gpt2():
    t = build(byte_level(), ["<|endoftext|>"])
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    return t


def lfm2():
    t = build([split(Regex(LLAMA3)), byte_level(regex=False)], ["<|pad|>", "<|startoftext|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"], ignore_merges=True)
    t.post_processor = processors.Sequence([processors.ByteLevel(), bos_template("<|startoftext|>", 1)])
    return t


def qwen2():
    t = build([split(Regex(QWEN2)), byte_level(regex=False)], normalizer=normalizers.NFC())
    t.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    t.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("e\u0301clair", normalized=True)])
    return t


def smollm2():
    t = build([pre_tokenizers.Digits(individual_digits=True), byte_level()], ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    return t


def neox():
    t = build(byte_level(), ["<|endoftext|>", "<|padding|>"], normalizer=normalizers.NFC())
    t.add_tokens([AddedToken(" " * n, normalized=False) for n in range(24, 1, -1)])
    t.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])
    return t


def roberta():
    """A space in front of every piece, and added tokens with every flag."""
    t = build(byte_level(prefix=True), ["<s>", "</s>"])
    t.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False), AddedToken("<end>", rstrip=True)])
    t.add_tokens([AddedToken("word", single_word=True), AddedToken("ab", lstrip=True, rstrip=True, normalized=False), AddedToken("abc"), AddedToken("  ", normalized=False), AddedToken("caf\u00e9")])
    t.post_processor = processors.TemplateProcessing(single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    return t


def holes():
    """Not a token for every byte: the missing ones are unknown, several in a row one."""
    return build(byte_level(), ["<unk>"], vocab=300, alphabet=False, unk_token="<unk>", fuse_unk=True)


def dropped():
    """Not a token for every byte, and nothing to stand for them."""
    return build([split(Regex(GPT2_SHORT)), byte_level(regex=False)], vocab=300, alphabet=False)


def cl100k():
    return build([split(Regex(CL100K), "removed", invert=True), byte_level(regex=False)], ["<|endoftext|>"])


def literal():
    return build(
        [
            split(" ", "merged_with_next"),
            split("\n", "merged_with_previous"),
            split("-", "contiguous"),
            split(",", "removed"),
            split("e", "isolated", invert=True),
            pre_tokenizers.Digits(individual_digits=False),
            byte_level(regex=False),
        ]
    )


def pairs_form():
    """The same as gpt2 but in one piece: no cut at all, merges across words."""
    return build(byte_level(regex=False), ["<|endoftext|>"])


TOKENIZERS = {
    f.__name__: f
    for f in (gpt2, lfm2, qwen2, smollm2, neox, roberta, holes, dropped, cl100k, literal, pairs_form)
}

TEXTS = [
    b"",
    b" ",
    b"  ",
    b"\n",
    b"a",
    b"Hello  world\n\n  foo 12345 don'T _x e\xcc\x81 \xe4\xb8\xad\xe6\x96\x87",
    b" \t\r\n ",
    "a\u00a0b  c   ".encode(),
    "I'M you'RE we'Ve it'\u017f 'LL 'x ''s '\u017fa \u2019s".encode(),
    b"\r\n\r\n  \r\n x\r\n\ty\r\n",
    b"   leading and trailing   \n",
    b"a\x0bb\x0cc\x1cd\x1de\x1ef\x1fg\x85h\x00i",
    "\u0085\u1680\u2000\u2028\u2029\u202f\u205f\u3000x\u200b\u180e\ufeffy".encode(),
    "\ufeffBOM first".encode(),
    "123 4567 89012345 \u0661\u0662\u0663\u0664 \u2460\u2461 \u00bd\u00be \u2167 \U0001d7ce\U0001d7cf".encode(),
    "\U00011de0\U00016ff4 x\U00011de1y".encode(),  # numbers of Unicode 17, unknown to 16
    "\U00031350\U0002ebf0\u1c89 \U00010d4a".encode(),  # letters of Unicode 15 and 16
    "e\u0301\u0323 \u1e69 s\u0323\u0307 s\u0307\u0323 \u212b \u2126 \ufb01 \uac00\u11a8 \u1100\u1161\u11a8 \u0958 \u2adc".encode(),
    "\u0344 \u0f73\u0f71 \u0cc6\u0cc2\u0cd5 \u0dd9\u0dcf\u0dca \u09c7\u09be \U0001d15e".encode(),
    "\u0301abc \u0301\u0301".encode(),
    "\u0915\u094d\u0937\u093f \u0e01\u0e33 \u0627\u0644\u0652 \u05e9\u05c1".encode(),
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466\U0001f3fd \U0001f1e9\U0001f1ea \u2764\ufe0f".encode(),
    b"\xff\xfe invalid \xc3\x28 \xe2\x82 \xe2\x28\xa1 \xf0\x9f\x98 \xed\xa0\x80 \xc0\xaf \xf8\x88\x80\x80\x80 \x80\xbf",
    b"\xf4\x90\x80\x80 \xf0\x80\x80\x80 \xe0\x80\x80 \xc3",
    b"\xe4\xb8",
    b"<|endoftext|>",
    b"a<|endoftext|>b <|endoftext|> <|im_start|>user\nhi<|im_end|><|endoftext|",
    b"<|im_start|><|im_start|>|im_start|><|startoftext|><|pad|><|padding|>",
    b"  <mask>  <mask> x<mask><end>   <end> y <end>z",
    b"word words sword word, word\xc3\xa9 _word word_ word\xcc\x81 (word) 9word word9",
    "word\u24b6 \U0001f130word \u200dword word\u2160 word\u203f".encode(),
    b" ab abc  ab  abab aabbcc ab",
    "caf\u00e9 cafe\u0301 e\u0301clair \u00e9clair".encode(),
    b"<tool_call>x</tool_call>",
    b"x" * 100 + b" " * 77 + b"y" * 40 + b"\n" * 30,
    b" " * 24 + b"a" + b" " * 25 + b"b" + b" " * 49,
    b"-" * 70 + b"=" * 70 + b"_" * 31 + b"0" * 50,
    b"----- a--b - c,d,,e e ee 1.5-- \n\n--\n-",
    b"The quick brown fox; the age of foolishness. it was the worst ACGTACGTTAGCC",
    "\u4e2d" .encode() * 40,
    bytes(range(1, 128)),
    "".join(map(chr, range(0x80, 0x250))).encode(),
]


def random_texts(count, seed):
    """Seeded strings over alphabets in which the patterns' classes meet."""
    rng = random.Random(seed)
    alphabets = [
        " \n\r\ta1'.",
        " \u00a0\u2003\n x1,",
        "'sStTrReEvVmMlLdD\u017f \n",
        "0123456789\u0663\u2160\u00b2 a,",
        "abcABC\u00e9\u0301\u0323\u1e69 ",
        "\u1100\u1161\u11a8\uac00\uac01 \u0cc6\u0cc2\u0cd5\u0bc6\u0bbe",
        "<|endoftx>imsar_ \n",
        "abcword<mask> \u200d_9",
        " -,\ne1a",
        "the age of wisdom,.it was\n",
        "ACGTN\n",
    ]
    texts = []
    for i in range(count):
        kind = i % (len(alphabets) + 3)
        length = rng.choice([3, 8, 20, 60])
        if kind < len(alphabets):
            texts.append("".join(rng.choice(alphabets[kind]) for _ in range(length)).encode())
        elif kind == len(alphabets):
            points = (rng.randrange(0x110000) for _ in range(length))
            texts.append("".join(chr(c) for c in points if not 0xD800 <= c < 0xE000).encode())
        elif kind == len(alphabets) + 1:
            points = (rng.randrange(0x3000) for _ in range(length))
            texts.append("".join(map(chr, points)).encode())
        else:
            texts.append(bytes(rng.randrange(256) for _ in range(length)))
    return texts


def planes():
    """Every code point, between letters, in blocks of 4096."""
    for first in range(0, 0x110000, 4096):
        points = [c for c in range(first, first + 4096) if not 0xD800 <= c < 0xE000]
        if points:
            yield first, "".join("a%s b" % chr(c) for c in points).encode()


def expect(tokenizer, text):
    """(ids with special tokens, ids without, the text of the first) for bytes."""
    string = text.decode("utf-8", errors="replace")
    tokenizer.encode_special_tokens = False
    ids = tokenizer.encode(string).ids
    tokenizer.encode_special_tokens = True
    plain = tokenizer.encode(string, add_special_tokens=False).ids
    tokenizer.encode_special_tokens = False
    return ids, plain, tokenizer.decode(ids, skip_special_tokens=False)
