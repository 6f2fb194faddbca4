#!/usr/bin/env python3
"""Makes tests/data/tokenizer.gguf and tests/golden/tokenizer.json.

Trains a small SentencePiece BPE model with LLaMA's settings (byte fallback, digits split, dummy prefix, identity
normalisation), stores its vocabulary as GGUF tokenizer keys, and records what SentencePiece makes of many texts.

    python3 -m venv venv && venv/bin/pip install sentencepiece==0.2.0
    venv/bin/python tests/golden/make_tokenizer.py
"""
import io
import json
import random
import struct
from pathlib import Path

import sentencepiece

assert sentencepiece.__version__ == "0.2.0", sentencepiece.__version__
TESTS = Path(__file__).resolve().parent.parent

SUBJECTS = ["a red circle", "the small dog", "two blue squares", "an old man with a hat", "a green triangle",
            "a woman in a yellow coat", "three cups of coffee", "the wooden table", "a child", "many people",
            "a black cat", "the traffic light", "a white bus", "an open window", "a bowl of oranges"]
PLACES = ["in the background", "on the left", "on the right", "at the centre of the image", "next to a bicycle",
          "in front of the house", "under the bridge", "on the beach", "above the grey line", "near the river"]
VERBS = ["is standing", "is visible", "can be seen", "is sitting", "appears", "is placed", "is shown", "is moving"]
FIXED = [
    "What is in the image?", "Describe the image in detail.", "Is there a dog in the image?", "Yes.", "No.",
    "Please answer yes or no.", "How many objects are there?", "There are 3 objects.", "USER: what colour is it?",
    "ASSISTANT: The image shows a red circle and a blue square.", "The picture was taken in 2014, at 10:45.",
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions.",
    "Das Bild zeigt einen großen Hund, der über die Straße läuft.", "Une fenêtre ouverte près de l'église à Besançon.",
    "El niño está jugando en el jardín.", "Быстрая лиса прыгает через ленивую собаку.", "Картина на стене.",
    "图片中有一只猫。", "这是一张照片。", "犬が公園で走っています。", "Η εικόνα δείχνει ένα σπίτι.",
    "    indented   text  with    spaces", "for (int i = 0; i < n; i++) { sum += x[i]; }", "\ttab separated\tcolumns",
    "The cat sat on the mat, and the dog ran after the ball.", "A photo of a café with naïve façade.",
]


def corpus():
    rng = random.Random(20)
    lines = FIXED * 4
    for _ in range(500):
        line = f"{rng.choice(SUBJECTS)} {rng.choice(VERBS)} {rng.choice(PLACES)}"
        if rng.random() < 0.5:
            line += f", and {rng.choice(SUBJECTS)} {rng.choice(VERBS)} {rng.choice(PLACES)}"
        lines.append(line[0].upper() + line[1:] + ".")
    return lines


def train():
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()), model_writer=model, model_type="bpe", vocab_size=900, byte_fallback=True,
        split_digits=True, add_dummy_prefix=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True, character_coverage=0.995, num_threads=1, minloglevel=2)
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def string(s):
    data = s.encode() if isinstance(s, str) else s
    return struct.pack("<Q", len(data)) + data


def gguf(sp):
    n = sp.get_piece_size()

    def kind(i):
        return 2 if sp.is_unknown(i) else 3 if sp.is_control(i) else 6 if sp.is_byte(i) else 5 if sp.is_unused(i) else 1

    keys = [
        (8, "general.architecture", string("llama")),
        (8, "tokenizer.ggml.model", string("llama")),
        (9, "tokenizer.ggml.tokens", struct.pack("<iQ", 8, n) + b"".join(string(sp.id_to_piece(i)) for i in range(n))),
        (9, "tokenizer.ggml.scores", struct.pack(f"<iQ{n}f", 6, n, *(sp.get_score(i) for i in range(n)))),
        (9, "tokenizer.ggml.token_type", struct.pack(f"<iQ{n}i", 5, n, *(kind(i) for i in range(n)))),
        (4, "tokenizer.ggml.bos_token_id", struct.pack("<I", sp.bos_id())),
        (4, "tokenizer.ggml.eos_token_id", struct.pack("<I", sp.eos_id())),
        (4, "tokenizer.ggml.unknown_token_id", struct.pack("<I", sp.unk_id())),
        (7, "tokenizer.ggml.add_bos_token", b"\1"),
    ]
    data = b"GGUF" + struct.pack("<IQQ", 3, 0, len(keys))
    data += b"".join(string(name) + struct.pack("<i", t) + value for t, name, value in keys)
    return data + bytes(-len(data) % 32)


def texts():
    written = [
        "", " ", "  ", "   ", "        ", "a", " a", "a ", "  a", "a  ", "  a  b   c    d     ", "\n", "\n\n", "\t", "\r\n",
        " \n ", "a\nb", "a\tb", "line one\nline two\n", "\n<image>", "Hello", "hello world", "Hello, World!", "HELLO WORLD",
        "What is in the image?", "Describe the image in detail.", "Is there a dog in the image? Answer yes or no.",
        "USER: <image>\nWhat is this? ASSISTANT:", "</s>", "<s>", "<unk>", "<0x41>", "a<s>b</s>", "<im_start>user",
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions. USER: ", "\nWhat is shown? ASSISTANT:",
        "0", "7", "10", "123", "3.14159", "2024-01-31", "1,000,000", "x86_64", "1 2 3", "00:45:12", "٣٤٥", "１２３",
        "café", "cafe\u0301", "naïve façade", "ÀÉÎÕÜ àéîõü", "groß", "Straße", "Žluťoučký kůň", "İstanbul", "ﬁ ligature",
        "Быстрая лиса", "собака", "Привет, мир!", "Η εικόνα", "שלום עולם", "مرحبا بالعالم", "नमस्ते दुनिया", "สวัสดี",
        "图片", "图片中有一只猫。", "这是一张照片，里面有两个人。", "犬が公園で走っています。", "カタカナ", "한국어 문장", "𠮷野家",
        "🙂", "🙂🙂", " 🙂 ", "a🙂b", "👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪🇫🇷", "1️⃣", "❤️", "🦊 the fox",
        "e\u0301\u0302\u0303", "Z̷a̷l̷g̷o̷", "\u200d", "\u200b", "\ufeff", "\u00a0", "\u3000", "\u2028", "\ufffd", "\u00ad",
        "\u2581", "\u2581\u2581", "a\u2581b", " \u2581 ", "\u2581the", "the\u2581image", "\u2580\u2582",
        "\U0010ffff", "\ue000", "\u0001\u0002", "\x7f", "\u0080", "~`!@#$%^&*()_+-=[]{}|;':\",./<>?\\",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "thethethethethethethe", "imageimageimage", "circlecirclesquare",
        "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
        "pneumonoultramicroscopicsilicovolcanoconiosis", "x" * 300, "the " * 40, " " * 100, "\n" * 50, "ß" * 30, "猫" * 25,
        "for (int i = 0; i < n; i++) { sum += x[i]; }", "https://example.org/a/b?c=d&e=f#g", "user@example.org",
        "mixedCaseIdentifier snake_case kebab-case", "…—–‘’“”", "½ ² ₃ ∑ √ ∞ ≠", "\t\tindented\twith\ttabs",
    ]
    rng = random.Random(7)
    words = " ".join(FIXED + SUBJECTS + PLACES).split(" ")
    alphabet = "abcdefghij  \n.,'09éßжλ猫図🙂\u0301\u200d\u2581\U0001f468"
    for _ in range(40):
        written.append(" ".join(rng.choice(words) for _ in range(rng.randint(2, 15))))
    for _ in range(60):
        written.append("".join(rng.choice(alphabet) for _ in range(rng.randint(1, 40))))
    return written


def main():
    sp = train()
    (TESTS / "data").mkdir(exist_ok=True)
    (TESTS / "data" / "tokenizer.gguf").write_bytes(gguf(sp))
    cases = [json.dumps({"text": t, "ids": (ids := sp.encode(t)), "decoded": sp.decode(ids)}) for t in texts()]
    (TESTS / "golden" / "tokenizer.json").write_text("[\n" + ",\n".join(cases) + "\n]\n")
    print(f"{sp.get_piece_size()} pieces, {len(cases)} texts")


if __name__ == "__main__":
    main()
