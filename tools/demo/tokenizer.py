"""LLaMA-style SentencePiece-BPE tokenizer of the demo model.

Pieces: <unk>, <s>, </s>, 256 byte pieces, merges (score = minus the merge number), single characters.
No piece crosses a word, so encoding word by word gives what an SPM engine gives on the whole text: merge
the adjacent pair with the best score until none is left.  A space is put in front of every chunk.
"""
import collections
import json
import os
import re

PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tokenizer.json")
SPACE = "\u2581"
CHARS = SPACE + "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,?!:;-'\"()"
BOS, EOS, BYTE0 = 1, 2, 3


def words(text):
    """Split text (spaces already replaced) so that no merge crosses a border."""
    return re.findall(SPACE + "?[A-Za-z]+|" + SPACE + "|[^A-Za-z" + SPACE + "]", text)


def train(counts):
    """Merge until every word of the corpus (word -> count) is one piece; returns (pieces, scores)."""
    split = {w: list(w) for w in counts}
    merges = []
    while True:
        pairs = collections.Counter()
        for w, s in split.items():
            for a, b in zip(s, s[1:]):
                pairs[a + b] += counts[w]
        if not pairs:
            break
        best = max(pairs, key=lambda p: (pairs[p], p))
        merges.append(best)
        for s in split.values():
            i = 0
            while i + 1 < len(s):
                if s[i] + s[i + 1] == best:
                    s[i:i + 2] = [best]
                i += 1
    pieces = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)] + merges + sorted(CHARS)
    scores = [0.0] * (BYTE0 + 256) + [-float(i) for i in range(len(pieces) - BYTE0 - 256)]
    return pieces, scores


class Tokenizer:
    def __init__(self, path=PATH):
        with open(path, encoding="utf-8") as f:
            data = json.load(f)
        self.pieces, self.scores = data["pieces"], data["scores"]
        self.index = {p: i for i, p in enumerate(self.pieces)}
        self.cache = {}

    def types(self):
        """GGUF token types: 2 unknown, 3 control, 6 byte, 1 normal."""
        return [2, 3, 3] + [6] * 256 + [1] * (len(self.pieces) - BYTE0 - 256)

    def encode_word(self, word):
        if word in self.cache:
            return self.cache[word]
        s = list(word)
        while True:
            best = None
            for i in range(len(s) - 1):
                j = self.index.get(s[i] + s[i + 1])
                if j is not None and (best is None or self.scores[j] > best[0]):
                    best = (self.scores[j], i)
            if best is None:
                break
            s[best[1]:best[1] + 2] = [s[best[1]] + s[best[1] + 1]]
        ids = []
        for x in s:
            ids += [self.index[x]] if x in self.index else [BYTE0 + v for v in x.encode()]
        self.cache[word] = ids
        return ids

    def encode(self, text):
        """Ids of one chunk, with the space prefix and without BOS."""
        return [i for w in words(SPACE + text.replace(" ", SPACE)) for i in self.encode_word(w)]

    def decode(self, ids):
        out = b""
        for i in ids:
            if i < BYTE0:
                continue
            out += bytes([i - BYTE0]) if i < BYTE0 + 256 else self.pieces[i].replace(SPACE, " ").encode()
        return out.decode(errors="replace")


def main():
    """Train on the generator's own language and write tokenizer.json."""
    import language
    counts = collections.Counter()
    for text in language.corpus():
        counts.update(words(SPACE + text.replace(" ", SPACE)))
    for w in list(counts):
        if not re.fullmatch(SPACE + "?[A-Za-z]+", w):
            del counts[w]
    pieces, scores = train(counts)
    with open(PATH, "w", encoding="utf-8") as f:
        json.dump(dict(pieces=pieces, scores=scores), f, ensure_ascii=False, indent=0)
        f.write("\n")
    print(len(pieces), "pieces")


if __name__ == "__main__":
    main()
