#!/usr/bin/env python3
"""Makes the test data of CHAIR's tokens and tagger in tests/data/chair with NLTK itself (PyPI nltk).

Run it twice, no NLTK data needed: first with nltk 3.8.1 (tokens_38.json, the pickles), then with nltk 3.9.4
(tokens_39.json, the JSON and tab files). The tagger is a small one, trained on the tagged captions of fixture.json; its
tags, and sentences with the made Punkt parameters below, are what candid must reproduce.

    make_chair.py tests/data/chair
"""
import json
import os
import pickle
import random
import sys

import nltk
from nltk.tag.perceptron import PerceptronTagger
from nltk.tokenize.destructive import NLTKWordTokenizer
from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

OLD = nltk.__version__ == "3.8.1"
assert OLD or nltk.__version__ == "3.9.4", nltk.__version__
# What candid knows without data.
COMMON = {"mr", "mrs", "ms", "dr", "st", "vs", "jr", "a.m", "p.m", "u.s"}
BEGINS_LOWER, BEGINS_UPPER, INSIDE_LOWER = 16, 2, 32


def made_punkt():
    params = PunktParameters()
    params.abbrev_types = {"approx", "no", "e.g", "pres", "mr"}
    params.collocations = {("mt", "everest"), ("##number##", "st")}
    params.ortho_context["and"] = BEGINS_LOWER | INSIDE_LOWER
    params.ortho_context["then"] = BEGINS_LOWER
    params.ortho_context["the"] = BEGINS_LOWER | BEGINS_UPPER
    params.ortho_context["a"] = INSIDE_LOWER
    return params


def strings():
    rnd = random.Random(5)
    words = (
        "a man's dog dogs. can't cannot gonna it's players' 'tis wanna don't he'll we've u.s. mr. e.g. 3.5 1,000 10:30 "
        "\"quoted\" ``x'' 'single' (paren) [br] -- - ... . .. ? ! ?! , ; : a. 5. b! «q» “curly” ‘x’ it’s – — don”t é "
        "café İstanbul k&k #1 $5 50% a@b <tag> {x} *bold* more'n d'ye 'twas lemme gimme gotta ' '' \" ` `` \n \t \n\n "
        "x.y .5 -5 --. .) ). .\" !\" ?' .' .] s' 's 'm n't 'll \u00a0 \u3000 ².² approx. ex-pres. mt. everest st. no. "
        "and then the"
    ).split(" ")
    signs = list("ab. ,'\"!?:;()[]-`s t1\n“”’—*")
    for _ in range(120):
        yield " ".join(rnd.choice(words) for _ in range(rnd.randint(1, 14)))
        yield "".join(rnd.choice(words) + rnd.choice(["", "", " "]) for _ in range(rnd.randint(1, 10)))
        yield "".join(rnd.choice(signs) for _ in range(rnd.randint(1, 30)))


def tokens(punkt, text):
    words = NLTKWordTokenizer()
    return [token for sentence in punkt.tokenize(text.lower()) for token in words.tokenize(sentence)]


def train(cases):
    random.seed(3)
    tagger = PerceptronTagger(load=False)
    tagger.train([list(zip(case["tokens"], case["tags"])) for case in cases], nr_iter=4)
    tagger.tagdict = {"a": "DT", "the": "DT", ".": "."}  # too little text for NLTK to find them
    return tagger


def main(folder):
    def path(name):
        os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
        return os.path.join(folder, name)

    common = PunktSentenceTokenizer()
    common._params.abbrev_types = COMMON
    made = PunktSentenceTokenizer()
    made._params = made_punkt()
    found = [{"text": s, "tokens": tokens(common, s), "with_punkt": tokens(made, s)} for s in strings()]
    for item in found:
        if item["with_punkt"] == item["tokens"]:
            del item["with_punkt"]
    with open(path("tokens_38.json" if OLD else "tokens_39.json"), "w", encoding="utf-8") as file:
        file.write("[\n" + ",\n".join(json.dumps(item, ensure_ascii=False) for item in found) + "\n]\n")

    pickled = "nltk_data_38/taggers/averaged_perceptron_tagger/averaged_perceptron_tagger.pickle"
    with open(path("fixture.json"), encoding="utf-8") as file:
        cases = json.load(file)["cases"]
    if OLD:
        tagger = train(cases[:12])
        with open(path(pickled), "wb") as file:
            pickle.dump((tagger.model.weights, tagger.tagdict, tagger.classes), file, protocol=2)
        with open(path("nltk_data_38/tokenizers/punkt/PY3/english.pickle"), "wb") as file:
            pickle.dump(made, file, protocol=2)
        tagged = [tagger.tag(case["tokens"]) for case in cases]
        with open(path("tags.json"), "w", encoding="utf-8") as file:
            rows = [json.dumps({"caption": c["caption"], "tags": [t for _, t in row]}) for c, row in zip(cases, tagged)]
            file.write("[\n" + ",\n".join(rows) + "\n]\n")
        return
    with open(path(pickled), "rb") as file:
        parts = pickle.load(file)
    stem = "nltk_data_39/taggers/averaged_perceptron_tagger_eng/averaged_perceptron_tagger_eng."
    for name, part in zip(("weights", "tagdict", "classes"), parts):
        with open(path(stem + name + ".json"), "w", encoding="utf-8") as file:
            json.dump(sorted(part) if name == "classes" else part, file)
    english = "nltk_data_39/tokenizers/punkt_tab/english/"
    tables = {
        "abbrev_types.txt": sorted(made._params.abbrev_types),
        "collocations.tab": ["\t".join(pair) for pair in sorted(made._params.collocations)],
        "ortho_context.tab": [f"{word}\t{bits}" for word, bits in sorted(made._params.ortho_context.items())],
        "sent_starters.txt": [],
    }
    for name, lines in tables.items():
        with open(path(english + name), "w", encoding="utf-8") as file:
            file.write("\n".join(lines))


main(sys.argv[1])
