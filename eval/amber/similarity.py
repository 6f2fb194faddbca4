#!/usr/bin/env python3
"""Writes which words of AMBER's vocabulary are alike, for candid score amber --similarity.

    pip install spacy && python3 -m spacy download en_core_web_lg
    python3 similarity.py AMBER/data/relation.json similarity.json

AMBER's program asks spaCy for the similarity of single words of a closed vocabulary, again and again; this asks once for
every pair. The result belongs to the version of the vectors, which is written into it.
"""
import argparse
import json

import spacy

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("relation", help="AMBER's relation.json")
parser.add_argument("out", help="the table to write")
parser.add_argument("--vectors", default="en_core_web_lg")
parser.add_argument("--threshold", type=float, default=0.8)
args = parser.parse_args()

with open(args.relation, encoding="utf-8") as f:
    relation = json.load(f)
words = list(dict.fromkeys(word for key, values in relation.items() for word in [key, *values]))
nlp = spacy.load(args.vectors)
docs = {word: nlp(word) for word in words}
similar = {
    word: [other for other in words if docs[word].similarity(docs[other]) > args.threshold] for word in words
}
with open(args.out, "w", encoding="utf-8") as f:
    json.dump({
        "amber_similarity": 1,
        "vectors": f"{args.vectors} {nlp.meta['version']}",
        "threshold": args.threshold,
        "words": words,
        "similar": similar,
    }, f, indent=0)
print(f"{args.out}: {len(words)} words, {sum(map(len, similar.values()))} pairs")
