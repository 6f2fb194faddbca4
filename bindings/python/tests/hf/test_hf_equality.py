"""What a model says in transformers with candid's methods is what candid's own exact path says, token by token.

CANDID_HF_SCENES=50 takes so many of the held-out scenes; 1 otherwise.
"""
from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import unittest

import hf_support as hf

import candid.hf

SCENES = int(os.environ.get("CANDID_HF_SCENES", "1"))
PROGRAM = os.environ.get("CANDID", hf.path("build", "release", "candid"))
LEADING = "Isn't there a dog in the image?"
# configurations by name in configs/; a question of its own for those that need one
CONFIGS = {"baseline": None, "var-demo": None, "vhr": None, "pai": None, "paint": None, "hgai": None, "act": None, "cca": None,
           "mma": None, "vista": None, "dola": None, "vcd": None, "damro": None, "icd": None, "icd-question": None,
           "lqcd": LEADING, "opera": None, "stack-vhr-pai": None, "stack-vista-pai": None}


def by_candid(folder: str, config: str, question: str, work: str) -> list[dict]:
    """The exact path's answers, from the program."""
    out = os.path.join(work, "answers.jsonl")
    scenes = [hf.path("models/demo/heldout/images", f"scene_{i:06d}.png") for i in range(SCENES)]
    subprocess.run([PROGRAM, "caption", "--model", folder, "--precision", "exact", "--preprocess", "crop", "--threads", "1",
                    "--prompt", question, "--config", hf.path("configs", config + ".json"), "--jsonl", out, *scenes],
                   check=True, capture_output=True)
    with open(out, encoding="utf-8") as f:
        return [json.loads(line) for line in f]


class Equality(unittest.TestCase):
    def compare(self, name: str, folder: str, config: str, question: str | None, **options) -> None:
        question = question or hf.DESCRIBE
        with tempfile.TemporaryDirectory() as work:
            expected = by_candid(hf.path(folder), config, question, work)
        processor, start, different = hf.processor_of(folder), time.time(), []
        with hf.attach(hf.path("configs", config + ".json"), folder, **options) as attached:
            for i, answer in enumerate(expected):
                prompt = attached.inputs(hf.scene(i), question)
                arguments = {} if attached.searches else {"do_sample": False}
                generate = attached.generate_opera if attached.searches else attached.model.generate
                ids = generate(**prompt, max_new_tokens=200, **arguments)[0, prompt.input_ids.shape[1]:]
                text = processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
                n_tokens = len(ids) + (attached.searches and answer["finish"] == "eos")    # OPERA's leaves the end token out
                if (text, n_tokens) != (answer["text"], answer["new_tokens"]):
                    different.append((i, answer["text"], text))
        print(f"{name}: {len(expected) - len(different)} of {len(expected)} the same, {time.time() - start:.1f} s", flush=True)
        self.assertEqual(different, [])

    def test_every_method(self):
        for config, question in CONFIGS.items():
            with self.subTest(config):
                self.compare(config, hf.DEMO, config, question)

    def test_a_model_made_for_cca(self):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, hf.path("tools/demo/export_hf.py"),
                            hf.path("models/demo-cca/candid-demo-cca.gguf"), folder], check=True, capture_output=True)
            self.compare("demo-cca", folder, "cca", None, trained_with="cca")


if __name__ == "__main__":
    hf.run()
