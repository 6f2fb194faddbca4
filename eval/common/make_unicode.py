#!/usr/bin/env python3
"""Writes unicode_ranges.inc: the character properties of Python's str methods and regular expressions.

Run once per Unicode version; the result is in the repository. Usage: make_unicode.py > unicode_ranges.inc
"""
import sys
import unicodedata


def ranges(test, limit=sys.maxunicode + 1):
    """[first, last, step] that cover the code points from 0x80 on for which test holds."""
    found = []
    for c in range(0x80, limit):
        if 0xD800 <= c < 0xE000 or not test(chr(c)):
            continue
        last = found[-1] if found else None
        if last and last[0] == last[1] and c - last[1] <= 2:
            last[1], last[2] = c, c - last[0]
        elif last and last[0] != last[1] and c - last[1] == last[2]:
            last[1] = c
        else:
            found.append([c, c, 1])
    return found


def write(name, kind, rows):
    print(f"static const struct {kind} {name}[] = {{")
    line = "   "
    for row in rows:
        item = " {" + ", ".join(f"0x{v:x}" if i < 2 else str(v) for i, v in enumerate(row)) + "},"
        if len(line) + len(item) > 120:
            print(line)
            line = "   "
        line += item
    print(line + "\n};")


def lower_ranges():
    """[first, last, step, difference] of the lower-case mappings to one character."""
    found = []
    for c in range(0x80, sys.maxunicode + 1):
        low = chr(c).lower()
        if len(low) != 1 or ord(low) == c:
            continue
        delta = ord(low) - c
        last = found[-1] if found else None
        if last and last[3] == delta and last[0] == last[1] and c - last[1] <= 2:
            last[1], last[2] = c, c - last[0]
        elif last and last[3] == delta and last[0] != last[1] and c - last[1] == last[2]:
            last[1] = c
        else:
            found.append([c, c, 1, delta])
    return found


print(f"/* Written by make_unicode.py from Unicode {unicodedata.unidata_version}. */")
write("word_ranges", "range", ranges(str.isalnum))
write("digit_ranges", "range", ranges(str.isdigit))
write("decimal_ranges", "range", ranges(str.isdecimal))
write("lower_ranges", "range", ranges(str.islower))
write("lower_map", "mapping", lower_ranges())
