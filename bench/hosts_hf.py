#!/usr/bin/env python3
"""What candid's methods cost inside transformers: time per step of model.generate() against the host alone.

    CANDID_LIBRARY=build/release/libcandid.so PYTHONPATH=bindings/python bench/hosts_hf.py [--shape demo] [--steps 48]

Needs torch and transformers.  All variants generate in one process, in turns: one step of each, then the next step of each.
They share their weights; "host again" is the unattached host a second time and shows the noise.  Weights of the shapes
other than demo are random.  Times are medians over steps; ratios are medians of a step's time over that of the host's step
in the same turn.
"""
import argparse
import json
import os
import pathlib
import sys
import threading
import time
import warnings
from statistics import median

import torch
import transformers
from transformers import (CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, StoppingCriteria,
                          StoppingCriteriaList)

import candid.hf

HERE = pathlib.Path(__file__).resolve().parent
BUSY = 0.05    # share of the processors that others may take
# text: layers, width, heads, MLP, vocabulary; the image is 24 x 24 tokens, as LLaVA-1.5's
SHAPES = {"small": (4, 512, 8, 1376, 8000), "large": (8, 1024, 16, 2752, 32000), "7b-2-layers": (2, 4096, 32, 11008, 32000)}
VARIANTS = {
    "host": None,
    "host again": None,
    "attached, idle": {},
    "var": {"var": {"sink_dims": [0], "tau": 2.5, "layers": "2-", "rho": 1, "summ": 0}},
    "vhr": {"vhr": {}},
    "pai, boost alone": {"pai": {"gamma": 1}},
    "hgai, one layer": {"hgai": {"layers": "2"}},
    "pai with contrast": {"pai": {}},
    "vcd": {"vcd": {}},
}


def random_model(shape):
    n_layer, width, heads, mlp, vocabulary = SHAPES[shape]
    text = LlamaConfig(hidden_size=width, intermediate_size=mlp, num_hidden_layers=n_layer, num_attention_heads=heads,
                       num_key_value_heads=heads, vocab_size=vocabulary, max_position_embeddings=2048)
    vision = CLIPVisionConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, image_size=336,
                              patch_size=14, projection_dim=64)
    torch.manual_seed(0)
    return LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, vision_feature_layer=-1,
                                                     image_token_index=vocabulary - 1)).eval()


def load(shape):
    if shape == "demo":
        return LlavaForConditionalGeneration.from_pretrained(HERE.parent / "models/demo-hf", dtype=torch.float32).eval()
    return random_model(shape)


def twin(model):
    """The same weights in another object."""
    with torch.device("meta"):
        other = type(model)(model.config)
    other.load_state_dict(model.state_dict(), assign=True)
    for (_, own), (name, buffer) in zip(model.named_buffers(), list(other.named_buffers())):
        parent, _, leaf = name.rpartition(".")
        other.get_submodule(parent)._buffers[leaf] = own if buffer.device.type == "meta" else buffer
    other.generation_config = model.generation_config
    return other.eval()


def prompt(model):
    """Twenty tokens of text around one image, as ids; their values do not matter."""
    c = model.config
    n = (c.vision_config.image_size // c.vision_config.patch_size) ** 2
    generator = torch.Generator().manual_seed(1)
    text = torch.randint(3, 300, (20,), generator=generator).tolist()
    ids = torch.tensor([[1] + text[:4] + [c.image_token_index] * n + text[4:]])
    side = c.vision_config.image_size
    return dict(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=torch.randn(1, 3, side, side, generator=generator))


class Turns(StoppingCriteria):
    """Lets a generation in a thread of its own go on step by step."""

    def __init__(self, model, inputs, steps, clock):
        self.go, self.done, self.error = threading.Semaphore(0), threading.Semaphore(0), None
        self.clock, self.begun, self.seconds = clock, 0.0, 0.0
        self.thread = threading.Thread(target=self._run, args=(model, inputs, steps), daemon=True)
        self.thread.start()

    def _run(self, model, inputs, steps):
        try:
            self.go.acquire()
            self.begun = self.clock()
            model.generate(**inputs, do_sample=False, max_new_tokens=steps, eos_token_id=[-1],
                           stopping_criteria=StoppingCriteriaList([self]))
        except Exception as e:    # shown by the main thread
            self.error = e
        self.done.release()

    def __call__(self, input_ids, scores, **_):
        self.seconds = self.clock() - self.begun
        self.done.release()
        self.go.acquire()
        self.begun = self.clock()
        return torch.zeros(len(input_ids), dtype=torch.bool)

    def step(self):
        """Seconds of one step; the first one is the prompt's."""
        self.go.release()
        self.done.acquire()
        if self.error:
            raise self.error
        return self.seconds


def share_of_others(since=None):
    """(all, idle, own) processor seconds so far, or the share of the processors that others took since."""
    with open("/proc/stat", encoding="ascii") as f:
        fields = [int(x) / os.sysconf("SC_CLK_TCK") for x in f.readline().split()[1:9]]
    now = sum(fields), fields[3] + fields[4], sum(os.times()[:2])
    if since is None:
        return now
    total, idle, own = (b - a for a, b in zip(since, now))
    return max(0.0, (total - idle - own) / max(total, 1e-9))


def measure(shape, variants, steps, rounds, clock):
    base = load(shape)
    inputs, models, attached = prompt(base), {}, []
    for name in variants:
        models[name] = twin(base)
        if VARIANTS[name] is not None:
            attached.append(candid.hf.attach(models[name], VARIANTS[name]))
    prompts, times = {v: [] for v in variants}, {v: [] for v in variants}
    before = share_of_others()
    for r in range(rounds + 1):    # the first one warms up
        turns = {v: Turns(models[v], inputs, steps, clock) for v in variants}
        for step in range(steps):
            order = variants[step % len(variants):] + variants[:step % len(variants)]
            for v in order:
                seconds = turns[v].step()
                if r:
                    (times if step else prompts)[v].append(seconds)
        for t in turns.values():
            t.go.release()
            t.thread.join()
        if r == 0:
            before = share_of_others()
    others = share_of_others(before)
    for a in attached:
        a.detach()
    return prompts, times, others


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=["demo", *SHAPES], default="large")
    parser.add_argument("--steps", type=int, default=48, help="tokens of each generation")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="torch's")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall",
                        help="cpu: processor time of the generating thread, for busy machines; with one thread only")
    parser.add_argument("--only", nargs="*", choices=[v for v in VARIANTS if v != "host"], help="these variants beside the host")
    parser.add_argument("--json", help="writes medians and ratios there")
    a = parser.parse_args()
    if a.clock == "cpu" and a.threads != 1:
        parser.error("--clock cpu counts one thread: expected --threads 1")
    torch.set_num_threads(a.threads)
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    variants = ["host"] + [v for v in VARIANTS if v != "host" and (a.only is None or v in a.only)]
    prompts, times, others = measure(a.shape, variants, a.steps, a.rounds,
                                     time.perf_counter if a.clock == "wall" else time.thread_time)
    print(f"{a.shape}, transformers {transformers.__version__}, torch {torch.__version__}, {a.threads} thread(s), {a.clock} time, "
          f"{a.rounds} x {a.steps - 1} steps; others took {100 * others:.0f} % of the processors"
          f"{': BUSY, distrust this' if others > BUSY else ''}")
    print(f"{'':20}{'prompt ms':>11}{'ratio':>8}{'step ms':>10}{'ratio':>8}")
    result = {}
    for v in variants:
        ratio = [median(x / y for x, y in zip(of[v], of["host"])) for of in (prompts, times)]
        p, t = 1e3 * median(prompts[v]), 1e3 * median(times[v])
        print(f"{v:20}{p:11.2f}{ratio[0]:8.3f}{t:10.3f}{ratio[1]:8.3f}")
        result[v] = dict(prompt_ms=p, prompt_ratio=ratio[0], step_ms=t, step_ratio=ratio[1])
    if a.json:
        with open(a.json, "w", encoding="utf-8") as f:
            json.dump(dict(shape=a.shape, others=others, variants=result), f, indent=1)


if __name__ == "__main__":
    sys.exit(main())
