"""candid's methods inside transformers against their independent implementations in tests/golden.

CANDID_HF_ALL=1 runs every recorded case; otherwise every second edit and contrast, every sixth beam search and every eighth
search by OPERA.
"""
from __future__ import annotations

import os
import unittest

import hf_support as hf
import torch

ALL = os.environ.get("CANDID_HF_ALL") == "1"
STEPS = 16


def worst_difference(found: torch.Tensor, recorded: torch.Tensor) -> float:
    """Largest difference of logits that are not cut off, relative to the row's largest."""
    kept = found.isfinite()
    apart = (found - recorded).abs().masked_fill(~kept, 0).amax(-1) / recorded.abs().amax(-1)
    return float(apart.max())


class Golden(unittest.TestCase):
    def logits(self, case, config, steps=STEPS):
        """(logits (steps, vocabulary), tokens) of greedy search that no end token stops."""
        inputs = hf.case_inputs(case)
        with hf.attach(config, case["model"]) as attached:
            out = attached.model.generate(**inputs, do_sample=False, max_new_tokens=steps, eos_token_id=[-1], output_logits=True,
                                          return_dict_in_generate=True)
        self.reports = attached.reports
        return torch.cat(out.logits), out.sequences[0, inputs.input_ids.shape[1]:].tolist()

    def test_edits_of_the_forward_pass(self):
        largest, n = 0.0, 0
        for case in hf.cases("interventions")[::1 if ALL else 2]:
            with self.subTest(case["name"]):
                config = {m: dict(o, gamma=1) if m in ("pai", "paint") else o for m, o in case["config"].items()}
                logits, tokens = self.logits(case, config)
                recorded = hf.tensors("interventions", case["name"].split(".")[0])[case["name"] + ".logits"]
                self.assertEqual(tokens, case["tokens"])
                apart = worst_difference(logits, recorded)
                self.assertLess(apart, 1e-4)
                largest, n = max(largest, apart), n + 1
        print(f"{n} cases, largest error {largest:.2e} of the largest logit")
        self.assertEqual(n, 80 if ALL else 40)

    def test_contrasts(self):
        largest, n = 0.0, 0
        reachable = [c for c in hf.cases("decoding") if c["kind"] == "greedy" and "causalmm" not in c["config"]]
        for case in reachable[::1 if ALL else 2]:
            with self.subTest(case["name"]):
                logits, tokens = self.logits(case, {m: o for m, o in case["config"].items() if m != "decode"})
                recorded = hf.tensors("decoding", case["name"].split(".")[0])[case["name"] + ".out"]
                self.assertEqual(tokens, case["tokens"][:STEPS])
                self.assertEqual(logits.isfinite().sum(-1).tolist(), case["kept"])
                apart = worst_difference(logits, recorded)
                self.assertLess(apart, 1e-4)
                largest, n = max(largest, apart), n + 1
        print(f"{n} of {len(reachable)} cases, largest error {largest:.2e} of the largest logit")
        self.assertGreater(n, 20)

    def test_beam_search_with_contrasts(self):
        listed = [c for c in hf.cases("decoding") if c["kind"] == "search" and "causalmm" not in c["config"]]
        n = 0
        for case in listed[::1 if ALL else 6]:
            with self.subTest(case["name"]):
                config, decode = dict(case["config"]), case["config"]["decode"]
                del config["decode"]
                inputs = hf.case_inputs(case)
                with hf.attach(config, case["model"]) as attached:
                    out = attached.model.generate(
                        **inputs, do_sample=False, max_new_tokens=case["max_new_tokens"], num_beams=decode["beams"],
                        length_penalty=float(decode.get("length_penalty", 1)), eos_token_id=2, pad_token_id=2,
                        early_stopping=dict(heuristic=False, early=True, never="never")[decode.get("early_stopping", "heuristic")],
                        num_return_sequences=decode.get("answers", 1),
                        repetition_penalty=float(decode.get("repetition_penalty", 1)), output_scores=True,
                        return_dict_in_generate=True)
                for sequence, score, answer in zip(out.sequences[:, inputs.input_ids.shape[1]:].tolist(),
                                                   out.sequences_scores.tolist(), case["answers"]):
                    self.assertEqual(sequence[:len(answer["tokens"])], answer["tokens"])
                    self.assertLessEqual(set(sequence[len(answer["tokens"]):]), {2})    # padding
                    self.assertAlmostEqual(score, answer["score"], delta=1e-4 * abs(answer["score"]))
                n += 1
        print(f"{n} of {len(listed)} recorded searches")
        self.assertGreater(n, 0)

    def test_opera(self):
        listed = [c for c in hf.cases("decoding") if c["kind"] == "opera"]
        n = rollbacks = 0
        for case in listed[::1 if ALL else 8]:
            with self.subTest(case["name"]):
                inputs = hf.case_inputs(case)
                model = hf.model_of(case["model"])
                config = dict(case["config"], decode={k: v for k, v in case["config"]["decode"].items()
                                                      if k in ("strategy", "beams", "length_penalty")})
                with hf.attach(config, case["model"]) as attached:
                    model.generation_config.eos_token_id = 2
                    ids = attached.generate_opera(**inputs, max_new_tokens=case["max_new_tokens"])
                answer = [t for t in case["answers"][0]["tokens"] if t != 2]
                self.assertEqual(ids[0, inputs.input_ids.shape[1]:].tolist(), answer)
                n, rollbacks = n + 1, rollbacks + len(case["rollbacks"])
        print(f"{n} of {len(listed)} recorded searches, {rollbacks} rollbacks")
        self.assertGreater(n, 0)


if __name__ == "__main__":
    hf.run()
