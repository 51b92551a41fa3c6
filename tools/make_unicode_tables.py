#!/usr/bin/env python3
"""Writes src/text/unicode_tables.c, nfc_decompositions.c and nfc_compositions.c.

The categories and the normalisation data are those of Hugging Face `tokenizers` (0.23 has Unicode 16 in
its regular expressions), found by asking it about every code point, so that Ember's splitters and NFC
agree with it by construction. Usage: make_unicode_tables.py [SOURCE_DIRECTORY]
"""
import pathlib
import sys

import tokenizers
from tokenizers import Regex, normalizers
from tokenizers.pre_tokenizers import Split

# The order of enum em_category in src/text/unicode.h.
CATEGORIES = ("Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Cs Co Cn").split()
CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
BLOCK = 4096


def matched(pattern):
    """Code points that the one-character pattern matches."""
    splitter = Split(Regex(pattern), "removed")
    found = []
    for i in range(0, len(CODE_POINTS), BLOCK):
        block = CODE_POINTS[i : i + BLOCK]
        kept = set()
        for _, (begin, end) in splitter.pre_tokenize_str("".join(map(chr, block))):
            kept.update(range(begin, end))
        found += [c for j, c in enumerate(block) if j not in kept]
    return found


def categories():
    table = [CATEGORIES.index("Cn")] * 0x110000
    table[0xD800:0xE000] = [CATEGORIES.index("Cs")] * 0x800
    seen = set()
    for index, name in enumerate(CATEGORIES):
        if name in ("Cs", "Cn"):
            continue
        for c in matched(r"\p{%s}" % name):
            assert c not in seen, hex(c)
            seen.add(c)
            table[c] = index
    return table


def write_numbers(out, numbers, width):
    line = "   "
    for n in numbers:
        text = " %s," % n
        if len(line) + len(text) > width:
            out.append(line)
            line = "   "
        line += text
    out.append(line)


def start_of_file():
    return [
        "// Made by tools/make_unicode_tables.py from tokenizers %s. Do not edit." % tokenizers.__version__,
        '#include "text/unicode_tables.h"',
        "",
        "// clang-format off",
    ]


def unicode_tables():
    table = categories()
    runs = [c for c in range(0x110000) if c == 0 or table[c] != table[c - 1]]
    out = [
        "// Made by tools/make_unicode_tables.py from tokenizers %s (Unicode 16). Do not edit." % tokenizers.__version__,
        '#include "text/unicode_tables.h"',
        "",
        "// clang-format off",
        "const uint32_t em_category_runs[] = {",
    ]
    write_numbers(out, ["0x%x" % (c << 5 | table[c]) for c in runs], 100)
    out += ["};", "", "const uint16_t em_category_index[EM_CATEGORY_BLOCKS + 1] = {"]
    index, r = [], 0
    for block in range(0x20000 >> 7):
        while r + 1 < len(runs) and runs[r + 1] <= block << 7:
            r += 1
        index.append(r)
    index.append(len(runs) - 1)  # everything from U+20000 on
    write_numbers(out, index, 100)
    out += ["};", ""]
    return "\n".join(out)


def combining_classes(table):
    """Canonical combining classes, by how NFD orders a mark beside marks of known class."""
    import unicodedata

    nfd = normalizers.NFD()
    marks = [c for c in CODE_POINTS if CATEGORIES[table[c]] in ("Mn", "Mc", "Me")]
    known = {}
    for c in marks:  # a representative of every class that Python and tokenizers (which is older) both know
        k = unicodedata.combining(chr(c))
        moved = "a\u0300" + chr(c) if k < 230 else "a" + chr(c) + "\u0300"
        if k == 230 and c == 0x300 or k not in (0, 230) and nfd.normalize_str(moved) not in (moved, "a\u0300"):
            if nfd.normalize_str(chr(c)) == chr(c):
                known.setdefault(k, chr(c))
    classes = sorted(known)
    result = {}
    for c in marks:
        text = nfd.normalize_str(chr(c))
        if text != chr(c):
            continue
        # The smallest known class that c may stand before without being moved.
        at_most = [k for k in classes if nfd.normalize_str("a" + text + known[k]) == "a" + text + known[k]]
        at_least = [k for k in classes if nfd.normalize_str("a" + known[k] + text) == "a" + known[k] + text]
        exact = set(at_most) & set(at_least)
        if len(exact) == 1:
            result[c] = exact.pop()
        else:  # a starter: nothing moves across it
            assert len(exact) == len(classes), hex(c)
    return result


def nfc_tables(table):
    nfc, nfd = normalizers.NFC(), normalizers.NFD()
    ccc = combining_classes(table)
    decompositions, compositions = {}, {}
    for c in CODE_POINTS:
        if 0xAC00 <= c < 0xAC00 + 11172:
            continue  # Hangul is arithmetic
        full = nfd.normalize_str(chr(c))
        if full != chr(c):
            decompositions[c] = [ord(x) for x in full]
            if len(full) >= 2 and nfc.normalize_str(chr(c)) == chr(c):
                first = nfc.normalize_str(full[:-1])
                assert len(first) == 1
                compositions[(ord(first), ord(full[-1]))] = c
    pool, entries = [], []
    for c, full in sorted(decompositions.items()):
        assert len(full) <= 4 and len(pool) < 1 << 16
        entries.append((c << 3 | len(full), len(pool)))
        pool += full
    decomposed = start_of_file() + ["const struct em_decomposition em_decompositions[] = {"]
    write_numbers(decomposed, ["{0x%x, %d}" % e for e in entries], 120)
    decomposed += ["};", "const size_t em_decomposition_count = %d;" % len(entries), "", "const uint32_t em_decomposition_pool[] = {"]
    write_numbers(decomposed, ["0x%x" % c for c in pool], 120)
    decomposed += ["};", ""]
    composed = start_of_file() + ["const struct em_composition em_compositions[] = {"]
    write_numbers(composed, ["{0x%x, 0x%x, 0x%x}" % (a, b, c) for (a, b), c in sorted(compositions.items())], 120)
    tails = sorted({b for _, b in compositions if b not in ccc})
    composed += ["};", "const size_t em_composition_count = %d;" % len(compositions), "", "const uint32_t em_composition_tails[] = {"]
    write_numbers(composed, ["0x%x" % c for c in tails], 120)
    composed += ["};", "const size_t em_composition_tail_count = %d;" % len(tails), "", "const struct em_ccc_range em_ccc_ranges[] = {"]
    ranges = []
    for c, k in sorted(ccc.items()):
        if ranges and ranges[-1][1] == c - 1 and ranges[-1][2] == k:
            ranges[-1][1] = c
        else:
            ranges.append([c, c, k])
    write_numbers(composed, ["{0x%x, 0x%x, %d}" % tuple(r) for r in ranges], 120)
    composed += ["};", "const size_t em_ccc_range_count = %d;" % len(ranges), ""]
    return "\n".join(decomposed), "\n".join(composed)


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent / "src/text")
    (root / "unicode_tables.c").write_text(unicode_tables())
    decomposed, composed = nfc_tables(categories())
    (root / "nfc_decompositions.c").write_text(decomposed)
    (root / "nfc_compositions.c").write_text(composed)


if __name__ == "__main__":
    main()
