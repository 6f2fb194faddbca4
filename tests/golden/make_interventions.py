"""Makes tests/golden/interventions: what methods against hallucination do to small LLaVA models, computed on transformers.

    python3 -m venv /tmp/hf && /tmp/hf/bin/pip install -r tests/golden/requirements-hf.txt
    /tmp/hf/bin/python tests/golden/make_interventions.py            # writes tests/golden/interventions
    /tmp/hf/bin/python tests/golden/make_interventions.py --check    # computes it again elsewhere and compares
    /tmp/hf/bin/python tests/golden/make_interventions.py --only planted.vhr    # shows the cases so named

Nothing is downloaded; models/demo-hf and tests/golden/hf must be there.  The model itself is transformers' own: its
attention function is replaced by the one below (which the decoder calls for every layer) and hooks see and change the
input, the MLP output and the output of every layer.  All is f32; every branch has its own KV cache.

  planted/             an own tiny LLaVA (8 query heads, 4 key/value heads, 5 layers, 6x6 image tokens) in which the first
                       token and three image tokens carry massive values in two hidden dimensions
  cases.json           a list of cases:
      name, model, image    (paths from the repository's root)
      prompt, text          the question, and the whole prompt with one placeholder for the image
      config                {method: {option: value}}, options not named have the defaults below
      ids                   the prompt's ids, the placeholder repeated once per image token
      tokens                16 greedy tokens; the end token does not stop them
      differs               largest absolute difference of a logit to the same run without any method, over the rows up
                            to and including the first in which the two choose different tokens
      margins               for every kind of decision how far the closest one was from its boundary, relatively
      active                what the methods did, in counts
  MODEL.safetensors    "<case name>.logits": f32 (16, vocabulary), row t is the one token t was chosen from (0: prefill)

Methods, options and defaults (layers are "a", "a-b" with both ends, "a-" to the last, joined by commas; heads are
query heads; K image tokens start at s; P is the length of the prompt):

  var         tau 20, rho 0.5, summ 0.2, p 0.6, sink_dims [], layers "2-", exclude_last_layer true, include_first_token
              true, p_is_removed_fraction false, rho_is_min_nonsink false, eps_mode "per_element" or "once"
  vhr         alpha 2, layers "auto" (1 and the last 14; below 32 layers 1 and the last round(14 L / 32)), distance "sq" or
              "l2", filter true, filter_guard 1 (0: none), text_norm "sq" or "l2", prefill_rows "all" or "last",
              measure "layerwise" or "unreinforced"
  cca         mode "rings" or "reverse_raster"
  mma         keep_last 0: so many tokens at the prompt's end stay hidden from the image tokens
  pai         alpha 0.5, layers "2-", boost_first_token true
  paint       alpha 0.5, beta 0.3, layers "2-", local_block 0, summary_block -1 (the last whose output is used),
              local_ratio 0.25
  hgai        alpha 0.5, layers "5-18" (as far as the model has them)
  act         beta 0.4, threshold 0.1, layers "2-", heads null (all) or a list of [layer, head]
  vista       lambda 0.17, gamma 0.3, layers "0-", sla_layers "25-30", pca_quirk false, cosine_gain true, site "mlp" or
              "residual"
  head_scale  heads [[layer, head], ...], scale 0

Order: positions and mask (cca, mma), scores (pai, paint, hgai one after the other), softmax, probabilities (var, act),
times values, scaling of heads (vhr measures first, then vhr and head_scale), projection, MLP, vista.  The branches of vhr
and vista are without any method, only vista's with the image has the positions and the mask of cca; the ones without the
image have contiguous positions.  In every case no decision is closer to its boundary than 1e-3, relatively.
"""
import argparse
import json
import os
import shutil
import sys
import tempfile

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file
from transformers import (AttentionInterface, CLIPImageProcessor, CLIPVisionConfig, DynamicCache,
                          LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor, PreTrainedTokenizerFast)

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.normpath(os.path.join(HERE, "..", ".."))
sys.path.insert(0, HERE)
from make_hf_models import HUB_15, IMAGE, ROWS, randomise    # noqa: E402

STEPS, CLOSE = 16, 1e-3
DEFAULTS = dict(
    var=dict(tau=20.0, rho=0.5, summ=0.2, p=0.6, sink_dims=[], layers="2-", exclude_last_layer=True,
             include_first_token=True, p_is_removed_fraction=False, rho_is_min_nonsink=False, eps_mode="per_element"),
    vhr=dict(alpha=2.0, layers="auto", distance="sq", filter=True, filter_guard=1.0, text_norm="sq", prefill_rows="all",
             measure="layerwise"),
    cca=dict(mode="rings"),
    mma=dict(keep_last=0),
    pai=dict(alpha=0.5, layers="2-", boost_first_token=True),
    paint=dict(alpha=0.5, beta=0.3, layers="2-", local_block=0, summary_block=-1, local_ratio=0.25),
    hgai=dict(alpha=0.5, layers="5-18"),
    act=dict(beta=0.4, threshold=0.1, layers="2-", heads=None),
    vista={"lambda": 0.17, "gamma": 0.3, "layers": "0-", "sla_layers": "25-30", "pca_quirk": False, "cosine_gain": True,
           "site": "mlp"},
    head_scale=dict(heads=[], scale=0.0))


def full(config):
    """The configuration with all defaults; unknown names are an error."""
    for method, options in config.items():
        assert set(options) <= set(DEFAULTS[method]), (method, options)
    return {method: {**DEFAULTS[method], **options} for method, options in config.items()}


def layer_set(text, n):
    out = set()
    for part in text.split(","):
        a, dash, b = part.strip().partition("-")
        out |= set(range(int(a), (int(b) + 1 if b else n) if dash else int(a) + 1))
    return {i for i in out if i < n}


# ---- how close decisions were ---------------------------------------------------------------------------------------

class Margins(dict):
    """kind -> the smallest relative distance of a value to the bound it was compared with."""

    def note(self, kind, margin):
        margin = torch.as_tensor(margin, dtype=torch.float64)
        if margin.numel():
            self[kind] = min(self.get(kind, float("inf")), float(margin.min()))

    def note_all(self, kind, conditions):
        """Of a decision "all of these hold": pairs (what holds, its margin).  One clear failure makes it clear."""
        holds = torch.stack([torch.as_tensor(h).expand(conditions[-1][0].shape) for h, _ in conditions])
        margin = torch.stack([torch.as_tensor(m, dtype=torch.float64).expand(holds.shape[1:]) for _, m in conditions])
        failing = margin.masked_fill(holds, -1).amax(0)
        self.note(kind, torch.where(holds.all(0), margin.amin(0), failing))


def apart(value, bound):
    return (torch.as_tensor(value).double() - bound).abs() / max(abs(float(bound)), 1e-30)


# ---- the methods, on plain tensors ----------------------------------------------------------------------------------

def sink_scores(x, dims):
    """VAR: phi of every row of x (rows, width)."""
    x = x.float()
    return (x[:, dims].abs() / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()).amax(-1)


def redistribute_var(a, s, k, sinks, o, margins=None):
    """VAR on rows a (heads, rows, keys); sinks: sorted indices.  Returns the new rows and what was selected."""
    sinks = torch.as_tensor(sinks, dtype=torch.long)
    visual = sinks[(sinks >= s) & (sinks < s + k)]
    if not len(visual):
        return a, torch.zeros(a.shape[:2], dtype=torch.bool)
    kept = 1 - o["p"] if o["p_is_removed_fraction"] else o["p"]
    rho = 1 - o["rho"] if o["rho_is_min_nonsink"] else o["rho"]
    mass = a[..., s:s + k].sum(-1)
    portion = a[..., visual].sum(-1) / (mass + 1e-6 * (k if o["eps_mode"] == "per_element" else 1))
    selected = (portion <= rho) & (mass >= o["summ"])
    if margins is not None:
        margins.note_all("var.select", [(portion <= rho, apart(portion, rho)), (mass >= o["summ"], apart(mass, o["summ"]))])
    receivers = torch.zeros(a.shape[-1], dtype=torch.bool)
    receivers[s:s + k] = True
    receivers[visual] = False
    freed = (1 - kept) * a[..., sinks].sum(-1, keepdim=True)
    z = a[..., receivers].sum(-1, keepdim=True)
    new = a.clone()
    new[..., sinks] *= kept
    new[..., receivers] += freed * a[..., receivers] / z.clamp_min(1e-30)
    return torch.where((selected & (z[..., 0] > 0))[..., None], new, a), selected


def select_vhr(image, text, o, margins=None):
    """VHR: the selected heads of one layer from the last row's head outputs (heads, size) with and without the image."""
    image, text = image.double(), text.double()
    d = (image - text).pow(2).sum(-1)
    n = text.pow(2).sum(-1)
    d = d.sqrt() if o["distance"] == "l2" else d
    n = n.sqrt() if o["text_norm"] == "l2" else n
    outliers = []
    if o["filter"]:
        spread, d_top, n_top = d.std(), d.mean() + d.std(), n.mean() + n.std()
        guard = [(spread > o["filter_guard"], apart(spread, o["filter_guard"]))] if o["filter_guard"] else []
        conditions = guard + [(d > d_top, apart(d, d_top)), (n > n_top, apart(n, n_top))]
        out = torch.stack([torch.as_tensor(h).expand(d.shape) for h, _ in conditions]).all(0)
        if margins is not None:
            margins.note_all("vhr.filter", conditions)
        d = torch.where(out, 0.0, d)
        outliers = out.nonzero()[:, 0].tolist()
    order = d.sort().values
    middle = (len(d) - 1) // 2
    if margins is not None and len(d) > 1:
        margins.note("vhr.median", 1 - order[middle] / order[middle + 1])
    return (d > order[middle]).nonzero()[:, 0].tolist(), outliers


def vhr_layers(text, n):
    return ({1} | set(range(n - (14 if n >= 32 else round(14 * n / 32)), n))) if text == "auto" else layer_set(text, n)


def rings(h, w):
    i, j = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    return torch.minimum(torch.minimum(i, h - 1 - i), torch.minimum(j, w - 1 - j)).reshape(-1)


def arrange(n, s, grid, config):
    """Position ids of n prompt tokens, the position of the next one, and what rows may see (rows, keys)."""
    positions, allowed = torch.arange(n), torch.ones(n, n).tril().bool()
    if s < 0:
        return positions, n, allowed
    k = grid[0] * grid[1]
    if "cca" in config and config["cca"]["mode"] == "rings":
        ring = rings(*grid)
        positions[s:s + k] = s + ring
        positions[s + k:] += int(ring.max()) + 1 - k
        allowed[s:s + k, s:s + k] = ring[None] <= ring[:, None]
    elif "cca" in config:
        positions[s:s + k] = positions[s:s + k].flip(0)
        allowed[s:s + k, s:s + k] = torch.ones(k, k).triu().bool()
    if "mma" in config:
        allowed[s:s + k, s + k:n - config["mma"]["keep_last"]] = True
    return positions, int(positions[-1]) + 1 if s + k < n else n, allowed


def sinks_act(a, visible, o, margins=None):
    """ACT: sinks of each head (heads, keys) from the prompt's probabilities (heads, rows, keys), the first one left out."""
    score = a.double().sum(1) / visible.sum(0)
    sinks = score > o["threshold"]
    if margins is not None:
        margins.note("act.threshold", apart(score, o["threshold"]))
    return sinks & (sinks.cumsum(-1) > 1)


def redistribute_act(a, sinks, beta):
    """ACT on rows a (heads, rows, keys) with the sinks of each head (heads, keys)."""
    sinks = torch.nn.functional.pad(sinks, (0, a.shape[-1] - sinks.shape[-1]))[:, None]
    rest = a.masked_fill(~sinks, 0).sum(-1, keepdim=True)
    others = a.masked_fill(sinks, 0)
    share = others / others.sum(-1, keepdim=True).clamp_min(1e-30)
    return torch.where(sinks, beta * a, a + (1 - beta) * rest * share)


def paint_sets(local, summary, ratio, margins=None):
    """PAINT: image tokens of both sets from the CLS attention of two blocks."""
    q1, q3 = np.percentile(summary.double().numpy(), [25, 75])
    bound = q3 + 1.5 * (q3 - q1)
    count = int((summary > bound).sum())
    chosen = torch.sort(summary, descending=True, stable=True).indices[:count].tolist()
    first = int(len(local) * ratio)
    order = torch.sort(local, descending=True, stable=True)
    if margins is not None:
        margins.note("paint.summary", apart(summary, bound))
        margins.note("paint.local", 1 - order.values[first] / order.values[first - 1])
    return sorted(set(order.indices[:first].tolist()) - set(chosen)), sorted(chosen)


def steer(x, v, o):
    """VISTA: rows x (rows, width) pushed along v."""
    norm = x.norm(dim=-1, keepdim=True)
    if o["site"] == "residual":
        y = x + o["lambda"] * v
    else:
        unit, way = x / norm.clamp_min(1e-12), v / v.norm().clamp_min(1e-12)
        gain = 1 + (-(unit @ way)).clamp_min(0)[..., None] if o["cosine_gain"] else 1.0
        y = unit + o["lambda"] * gain * way
    return norm * y / y.norm(dim=-1, keepdim=True).clamp_min(1e-12)


# ---- runs -----------------------------------------------------------------------------------------------------------

class Run:
    """One sequence through the decoder without any method; keeps what the last row had in each layer."""

    def __init__(self):
        self.heads_seen, self.blocks_seen = {}, {}

    def layer_input(self, layer, x):
        pass

    def scores(self, layer, s):
        return s

    def probabilities(self, layer, a, visible):
        return a

    def heads(self, layer, o):
        self.heads_seen[layer] = o[:, -1].clone()
        return o

    def mlp(self, layer, x):
        return x

    def block(self, layer, x):
        self.blocks_seen[layer] = x[-1].clone()
        return x


class Edited(Run):
    """One sequence with the methods of a (full) configuration."""

    def __init__(self, oracle, prompt, config):
        super().__init__()
        self.c, self.prompt, self.n = config, prompt, oracle.n_layers
        self.step, self.margins, self.active = 0, Margins(), {}
        self.sinks, self.chosen, self.act_sinks = {}, {}, {}
        self.layers = {m: layer_set(o["layers"], self.n) for m, o in config.items()
                       if "layers" in o and o["layers"] != "auto"}
        if "var" in config and config["var"]["exclude_last_layer"]:
            self.layers["var"].discard(self.n - 1)
        if "vhr" in config:
            self.layers["vhr"] = vhr_layers(config["vhr"]["layers"], self.n)
            self.without = oracle.probe(prompt.without_image(), {}).heads_seen
            if config["vhr"]["measure"] == "unreinforced":
                self.plain = oracle.probe(prompt, {}).heads_seen
        if "paint" in config:
            o = config["paint"]
            last = oracle.feature_block if o["summary_block"] == -1 else o["summary_block"]
            self.local, self.summary = paint_sets(prompt.cls[o["local_block"]], prompt.cls[last], o["local_ratio"],
                                                  self.margins)
            self.active.update({"paint.local": len(self.local), "paint.summary": len(self.summary)})
        if "vista" in config:
            places = {m: config[m] for m in config if m == "cca"}
            p, n = oracle.probe(prompt, places).blocks_seen, oracle.probe(prompt.without_image(), {}).blocks_seen
            self.v = {i: p[i] - n[i] for i in range(self.n)}
            if config["vista"]["pca_quirk"]:
                self.v[0][0] += 1.0

    def count(self, what, n):
        self.active[what] = self.active.get(what, 0) + int(n)

    def on(self, method, layer):
        return method in self.c and layer in self.layers[method]

    def layer_input(self, layer, x):
        if self.step or not self.on("var", layer):
            return
        o = self.c["var"]
        phi = sink_scores(x, o["sink_dims"])
        sink = phi > o["tau"]
        if not o["include_first_token"]:
            sink[0] = False
        self.margins.note("var.tau", apart(phi, o["tau"]))
        self.sinks[layer] = sink.nonzero()[:, 0].tolist()
        image = sum(self.prompt.s <= i < self.prompt.s + self.prompt.k for i in self.sinks[layer])
        self.count("var.image_sinks", image)
        self.count("var.text_sinks", len(self.sinks[layer]) - image)

    def scores(self, layer, s):
        image = slice(self.prompt.s, self.prompt.s + self.prompt.k)
        last = s[:, -1].clone()
        if self.on("pai", layer) and (self.step or self.c["pai"]["boost_first_token"]):
            last[:, image] += self.c["pai"]["alpha"] * last[:, image].abs()
        if self.on("paint", layer):
            for chosen, gain in ((self.local, self.c["paint"]["alpha"]), (self.summary, self.c["paint"]["beta"])):
                columns = [self.prompt.s + i for i in chosen]
                last[:, columns] += gain * last[:, columns].abs()
        if self.on("hgai", layer):
            last[:, image] += self.c["hgai"]["alpha"] * last[:, image].abs().mean(0)
        return torch.cat([s[:, :-1], last[:, None]], 1)

    def probabilities(self, layer, a, visible):
        if self.on("var", layer):
            first = 0 if self.step else self.prompt.s + self.prompt.k
            new, selected = redistribute_var(a[:, first:], self.prompt.s, self.prompt.k, self.sinks[layer], self.c["var"],
                                             self.margins)
            self.count("var.selected", selected.sum())
            self.count("var.not_selected", (~selected).sum())
            a = torch.cat([a[:, :first], new], 1)
        if self.on("act", layer):
            o = self.c["act"]
            if not self.step:
                sinks = sinks_act(a, visible, o, self.margins)
                for head in range(len(a)):
                    if o["heads"] is not None and [layer, head] not in o["heads"]:
                        sinks[head] = False
                self.act_sinks[layer] = sinks
                self.count("act.sinks", sinks.sum())
            first = 0 if self.step else 1
            a = torch.cat([a[:, :first], redistribute_act(a[:, first:], self.act_sinks[layer], o["beta"])], 1)
        return a

    def heads(self, layer, o):
        o = super().heads(layer, o).clone()
        if self.on("vhr", layer):
            c = self.c["vhr"]
            if not self.step:
                seen = self.plain[layer] if c["measure"] == "unreinforced" else o[:, -1]
                self.chosen[layer], outliers = select_vhr(seen, self.without[layer], c, self.margins)
                self.count("vhr.selected", len(self.chosen[layer]))
                self.count("vhr.outliers", len(outliers))
            first = o.shape[1] - 1 if c["prefill_rows"] == "last" else 0
            o[self.chosen[layer], first:] *= c["alpha"]
        for i, head in self.c.get("head_scale", dict(heads=[]))["heads"]:
            if i == layer:
                o[head] *= self.c["head_scale"]["scale"]
        return o

    def mlp(self, layer, x):
        return steer(x, self.v[layer], self.c["vista"]) if self.on("vista", layer) and \
            self.c["vista"]["site"] == "mlp" else x

    def block(self, layer, x):
        if self.on("vista", layer) and self.c["vista"]["site"] == "residual":
            x = steer(x, self.v[layer], self.c["vista"])
        return super().block(layer, x)


def attention(module, query, key, value, attention_mask, scaling, **_):
    """The attention function of every decoder layer: scores, softmax, values, each with what the current run does to it."""
    run, layer = module.oracle.run, module.layer_idx
    key, value = (t[0].repeat_interleave(module.num_key_value_groups, 0) for t in (key, value))
    visible = attention_mask[0, 0] == 0
    s = query[0] @ key.transpose(1, 2) * scaling + attention_mask[0]
    a = torch.softmax(run.scores(layer, s), -1)
    o = run.heads(layer, run.probabilities(layer, a, visible) @ value)
    return o.transpose(0, 1)[None], None


AttentionInterface.register("interventions", attention)


class Prompt:
    """ids and embeddings of an expanded prompt; s: first image token (-1: none), k: image tokens."""

    def __init__(self, ids, embeds, s, grid, cls=None):
        self.ids, self.embeds, self.s, self.grid, self.cls = ids, embeds, s, grid, cls
        self.k = grid[0] * grid[1] if s >= 0 else 0

    def without_image(self):
        keep = [i for i in range(len(self.ids)) if not self.s <= i < self.s + self.k]
        return Prompt([self.ids[i] for i in keep], self.embeds[:, keep], -1, self.grid)


def tokenizer(folder):
    """tokenizer.json as it stands."""
    return PreTrainedTokenizerFast(tokenizer_file=os.path.join(folder, "tokenizer.json"))


class Oracle:
    def __init__(self, folder):
        self.model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32,
                                                                   attn_implementation="eager").eval()
        self.config, self.text = self.model.config, self.model.model.language_model
        self.processor = LlavaProcessor(
            CLIPImageProcessor.from_pretrained(folder), tokenizer(folder), image_token=IMAGE, num_additional_image_tokens=1,
            patch_size=self.config.vision_config.patch_size, vision_feature_select_strategy="default")
        self.n_layers = self.config.text_config.num_hidden_layers
        f, blocks = self.config.vision_feature_layer, self.config.vision_config.num_hidden_layers
        self.feature_block = f + blocks if f < 0 else f - 1
        self.run, self.memory = None, {}
        for i, layer in enumerate(self.text.layers):
            layer.self_attn.oracle = self
            layer.register_forward_pre_hook(lambda m, args, i=i: self.run.layer_input(i, args[0][0]))
            layer.mlp.register_forward_hook(lambda m, args, out, i=i: self.run.mlp(i, out[0])[None])
            layer.register_forward_hook(lambda m, args, out, i=i: self.run.block(i, out[0])[None])

    def plain_attention(self, on):
        self.text.config._attn_implementation = "eager" if on else "interventions"

    @torch.no_grad()
    def prompt(self, image, question):
        text = f"USER: {IMAGE}\n{question} ASSISTANT:"
        key = (image, text)
        if key in self.memory:
            return self.memory[key]
        batch = self.processor(images=Image.open(os.path.join(ROOT, image)).convert("RGB"), text=text, return_tensors="pt")
        ids = batch.input_ids[0]
        places = (ids == self.config.image_token_index).nonzero()[:, 0]
        side = self.config.vision_config.image_size // self.config.vision_config.patch_size
        assert len(places) == side * side and int(places[-1] - places[0]) == len(places) - 1
        seen = self.model.model.vision_tower(batch.pixel_values, output_attentions=True)
        cls = [a[0, :, 0, 1:].sum(0) for a in seen.attentions]
        embeds = self.model.get_input_embeddings()(batch.input_ids).clone()
        embeds[0, places] = self.model.model.get_image_features(batch.pixel_values)[0]
        self.memory[key] = out = Prompt(ids.tolist(), embeds, int(places[0]), (side, side), cls)
        out.text, out.pixels = text, batch.pixel_values
        return out

    @torch.no_grad()
    def forward(self, run, embeds, positions, visible, cache):
        """The last row after the final norm."""
        self.run = run
        self.plain_attention(False)
        mask = torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.float32).min)[None, None]
        return self.text(inputs_embeds=embeds, position_ids=positions[None], attention_mask=mask, past_key_values=cache,
                         use_cache=cache is not None).last_hidden_state[0, -1]

    def probe(self, prompt, places):
        run = Run()
        positions, _, visible = arrange(len(prompt.ids), prompt.s, prompt.grid, places)
        self.forward(run, prompt.embeds, positions, visible, None)
        return run

    @torch.no_grad()
    def generate(self, image, question, config):
        """logits (STEPS, vocabulary), tokens, the run."""
        config, prompt = full(config), self.prompt(image, question)
        run, cache = Edited(self, prompt, config), DynamicCache()
        positions, following, visible = arrange(len(prompt.ids), prompt.s, prompt.grid, config)
        embeds, logits = prompt.embeds, []
        for step in range(STEPS):
            run.step = step
            if step:
                embeds = self.model.get_input_embeddings()(torch.tensor([[int(logits[-1].argmax())]]))
                positions, visible = torch.tensor([following + step - 1]), torch.ones(1, len(prompt.ids) + step).bool()
            z = self.model.lm_head(self.forward(run, embeds, positions, visible, cache))
            if "vista" in config:
                gamma, mixed = config["vista"]["gamma"], layer_set(config["vista"]["sla_layers"], self.n_layers)
                if gamma:
                    early = torch.stack([self.model.lm_head(run.blocks_seen[i]) for i in sorted(mixed)]).mean(0)
                    z = gamma * early + (1 - gamma) * z
            top = z.topk(2).values
            run.margins.note("argmax", (top[0] - top[1]) / z.abs().max())
            logits.append(z)
        return torch.stack(logits), [int(z.argmax()) for z in logits], run

    @torch.no_grad()
    def compare_plain(self, image, question, logits, tokens):
        """The run without any method against the model as transformers runs it, without a cache."""
        prompt = self.prompt(image, question)
        self.run = Run()
        self.plain_attention(True)
        ids = torch.tensor([prompt.ids + tokens[:-1]])
        out = self.model(input_ids=ids, pixel_values=prompt.pixels, attention_mask=torch.ones_like(ids), use_cache=False)
        worst = float((out.logits[0, len(prompt.ids) - 1:] - logits).abs().max())
        assert worst < 2e-4, worst


# ---- the planted model ----------------------------------------------------------------------------------------------

D1, D2 = 19, 46
FIRST = (30.0, -9.0)                                        # what BOS carries in D1 and D2
PATCHES = {8: (-12.0, 26.0), 21: (24.0, 10.0), 27: (6.0, -28.0)}    # and these image tokens
KEY_GAIN = 2.5
EPS = dict(summ=0.0, rho=0.1)     # with which the two readings of eps differ clearly
PLANT_IMAGE = "tests/golden/hf/images/square.png"


def plant(folder, seed=3):
    """Writes the planted model: weights as in make_hf_models.py, then the massive values."""
    source = os.path.join(HERE, "hf", "llava15_mha")
    ip = CLIPImageProcessor(size={"shortest_edge": 60}, crop_size={"height": 60, "width": 60})
    processor = LlavaProcessor(ip, tokenizer(source), patch_size=10, vision_feature_select_strategy="default",
                               image_token=IMAGE, chat_template=HUB_15, num_additional_image_tokens=1)
    vision = CLIPVisionConfig(hidden_size=24, intermediate_size=32, num_hidden_layers=3, num_attention_heads=4,
                              image_size=60, patch_size=10, projection_dim=16)
    text = LlamaConfig(hidden_size=64, intermediate_size=32, num_hidden_layers=5, num_attention_heads=8,
                       num_key_value_heads=4, vocab_size=ROWS, max_position_embeddings=1024, rms_norm_eps=1e-5)
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=412, vision_feature_layer=-2,
                         vision_feature_select_strategy="default")
    model = LlavaForConditionalGeneration(config).eval()
    model.set_attn_implementation("eager")
    randomise(model, seed)
    dims = [D1, D2]
    with torch.no_grad():
        for layer in model.model.language_model.layers:
            layer.self_attn.o_proj.weight[dims] *= 0.1      # the layers leave the two dimensions nearly alone; what
            layer.mlp.down_proj.weight[dims] *= 0.1         # has massive values gets a large key and a small value
            layer.input_layernorm.weight[dims] = KEY_GAIN
            layer.self_attn.q_proj.weight[:, dims] *= 0.1
            layer.self_attn.v_proj.weight[:, dims] *= 0.1
            layer.post_attention_layernorm.weight[dims] = 0.1
        model.model.language_model.norm.weight[dims] = 0.1
        table = model.get_input_embeddings().weight
        table[:, dims] *= 0.3
        table[1, dims] = torch.tensor(FIRST)
        projector = model.model.multi_modal_projector       # and the projector writes the values of the chosen patches
        pixels = processor(images=Image.open(os.path.join(ROOT, PLANT_IMAGE)), text=IMAGE, return_tensors="pt").pixel_values
        hidden = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-2][0, 1:]
        inside = projector.act(projector.linear_1(hidden)).double()
        wanted = torch.zeros(len(inside), 2, dtype=torch.float64)
        for i, values in PATCHES.items():
            wanted[i] = torch.tensor(values)
        projector.linear_2.weight[dims] = (torch.linalg.pinv(inside, rtol=1e-3) @ wanted).T.float()
        projector.linear_2.bias[dims] = 0.0
        model.half()
    model.config.dtype = torch.float16
    os.makedirs(folder, exist_ok=True)
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    processor.save_pretrained(folder)
    for name in ("added_tokens.json", "special_tokens_map.json", "tokenizer.json", "tokenizer.model",
                 "tokenizer_config.json"):
        shutil.copyfile(os.path.join(source, name), os.path.join(folder, name))
    from safetensors.torch import save_file as save
    save({k: v.contiguous() for k, v in model.state_dict().items() if "position_ids" not in k},
         os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})


# ---- the cases ------------------------------------------------------------------------------------------------------

MODELS = dict(demo="models/demo-hf", planted="tests/golden/interventions/planted", gqa="tests/golden/hf/llava15_gqa",
              mha="tests/golden/hf/llava15_mha")
SQUARE = "tests/golden/hf/images/square.png"
SCENE = "models/demo/heldout/images/scene_%06d.png"
QUESTIONS = ["What is in the image?", "Is there a dog in the image?", "Is there a keyboard in the image?",
             "Please help me describe the image in detail.", "Where is the cat?", "Describe the picture.",
             "Is there a bus on the street?", "What is on the right?", "What is on the left?", "Is there a dog?",
             "Who looks at the birds?", "How many cars are there?", "Is the boat in the sea?", "What does it show?",
             "Are there two birds?", "Is it a lazy dog or a quick fox?", "Does the image show the sky?", "Is there a boat?",
             "Is there a person in the street?", "What are the 12 small birds?", "Where is the bus?", "Where is the fox?",
             "Is there no dog in it?", "Is the cat on the left of the dog?", "Please describe it.", "Is it here?",
             "How many people are in the image?", "Is there a brown dog?", "What is the assistant?", "Is it the sky?"]
# which images and questions a case may use: the first with which no decision is close and all it asks for differs
INPUTS = dict(demo=[(SCENE % i, "Please help me describe the image in detail.") for i in (0, 7)],
              planted=[(SQUARE, q) for q in QUESTIONS], gqa=[(SQUARE, q) for q in QUESTIONS],
              mha=[(SQUARE, q) for q in QUESTIONS])


def variants(method, base, options):
    """Cases of one method: the base, and for every NAME: OPTIONS of options one that must differ from the base."""
    out = [(method, {method: base}, None)]
    for name, more in options.items():
        before = more.pop("base", base)
        out.append((f"{method}.{name}", {method: {**before, **more}}, {method: before}))
    return out


def cases():
    """model -> [(name, configuration, configuration it must differ from besides the empty one)]."""
    v = dict(tau=4.0, sink_dims=[D1, D2])
    planted = [("plain", {}, None)]
    planted += variants("var", v, {
        "tau": dict(tau=5.85), "rho": dict(rho=0.25), "summ": dict(summ=0.5), "p": dict(p=0.3),
        "one_dim": dict(sink_dims=[D2]),
        "layers": dict(layers="1,3-"), "last_layer": dict(exclude_last_layer=False),
        "without_first": dict(include_first_token=False), "p_removed": dict(p_is_removed_fraction=True),
        "min_nonsink": dict(base={**v, "rho": 0.8}, rho_is_min_nonsink=True),
        "eps_once": dict(base={**v, **EPS}, eps_mode="once")})
    planted += variants("vhr", {}, {
        "alpha_layers": dict(alpha=3.0, layers="0,2-3"), "distance": dict(distance="l2"), "no_filter": dict(filter=False),
        "no_guard": dict(filter_guard=0.0), "text_norm": dict(text_norm="l2"), "last_row": dict(prefill_rows="last"),
        "unreinforced": dict(measure="unreinforced")})
    planted += variants("cca", {}, {"reverse_raster": dict(mode="reverse_raster")})
    planted += variants("mma", {}, {"keep_last": dict(keep_last=3)})
    planted += variants("pai", {}, {"alpha_layers": dict(alpha=1.0, layers="1-2"),
                                    "without_first": dict(boost_first_token=False)})
    planted += variants("paint", {}, {"gains_layers": {"alpha": 0.2, "beta": 1.0, "layers": "0,3-"},
                                      "blocks": dict(local_block=1, summary_block=0), "ratio": dict(local_ratio=0.5)})
    planted += variants("hgai", dict(layers="2-3"), {"alpha_layers": dict(alpha=1.0, layers="1-18")})
    planted += variants("act", {}, {"beta": dict(beta=0.1), "threshold": dict(threshold=0.2), "layers": dict(layers="0-2"),
                                    "heads": dict(heads=[[2, 1], [3, 0], [3, 6], [4, 2]])})
    sla = dict(sla_layers="2-3")
    planted += variants("vista", sla, {
        "strengths": {"lambda": 0.5, "gamma": 0.6}, "layers": dict(layers="1-2"), "sla_layers": dict(sla_layers="0-4"),
        "pca_quirk": dict(pca_quirk=True), "no_gain": dict(cosine_gain=False), "residual": dict(site="residual"),
        "only_sla": {"lambda": 0.0}, "only_steer": {"gamma": 0.0}})
    planted += variants("head_scale", dict(heads=[[1, 2], [3, 0], [4, 7]]), {"half": dict(scale=0.5)})
    planted += [("var+vhr", dict(var=v, vhr={}), dict(vhr={})),
                ("cca+vhr+var+paint", dict(cca={}, vhr={}, var=v, paint={}), dict(cca={}, vhr={}, paint={}))]
    d = dict(tau=4.5, sink_dims=[1, 181])
    scale = dict(heads=[[1, 0], [3, 2], [5, 5]])
    sla = dict(sla_layers="2-4")
    demo = [("plain", {}, None), ("plain.other", {}, None), ("var", dict(var=d), None),
            ("vhr", dict(vhr={}), None),
            ("cca", dict(cca={}), None), ("mma", dict(mma={}), None), ("pai", dict(pai={}), None),
            ("paint", dict(paint={}), None), ("hgai", dict(hgai={}), None), ("act", dict(act={}), None),
            ("vista", dict(vista=sla), None),
            ("head_scale", dict(head_scale=scale), None),
            ("pai+hgai+vista+head_scale", dict(pai={}, hgai={}, vista=sla, head_scale=scale), None)]
    every = dict(layers="0-")
    g = dict(tau=2.2, sink_dims=[3, 17], layers="0-", exclude_last_layer=False)
    gqa = [("plain", {}, None), ("var", dict(var=g), None), ("vhr", dict(vhr={}), None), ("cca", dict(cca={}), None),
           ("mma", dict(mma={}), None), ("pai", dict(pai=every), None),
           ("paint", dict(paint=every), None), ("hgai", dict(hgai=dict(layers="0-1")), None),
           ("act", dict(act=every), None), ("vista", dict(vista=dict(sla_layers="0")), None),
           ("head_scale", dict(head_scale=dict(heads=[[0, 1], [1, 2]])), None)]
    mha = [("plain", {}, None), ("vhr", dict(vhr=dict(layers="0-1")), None), ("act", dict(act=every), None),
           ("vista", dict(vista=dict(sla_layers="0-1")), None)]
    return dict(demo=demo, planted=planted, gqa=gqa, mha=mha)


def difference(a, b):
    """Largest difference of two runs' logits over the rows that had the same tokens before them."""
    (za, ta, _), (zb, tb, _) = a, b
    rows = next((i + 1 for i in range(STEPS) if ta[i] != tb[i]), STEPS)
    return float((za[:rows] - zb[:rows]).abs().max())


def try_case(oracle, memory, image, question, config, base, why):
    """(logits, tokens, run, difference) or None: something is close to its boundary or does not differ."""
    def cached(c):
        key = json.dumps([image, question, c])
        if key not in memory:
            memory[key] = oracle.generate(image, question, c)
        return memory[key]
    out = cached(config)
    worst = min(out[2].margins.values())
    differs = difference(out, cached({})) if config else 0.0
    from_base = difference(out, cached(base)) if base else None
    good = worst >= CLOSE and oracle.config.image_token_index not in out[1] and (not config or differs > 0.01) and \
        (base is None or from_base > 0.01)
    if "var" in config:
        good = good and out[2].active.get("var.selected", 0) > 20 and out[2].active["var.not_selected"] > 20
    closest = min(out[2].margins, key=out[2].margins.get)
    why.append((question, image, closest, round(worst, 5), round(differs, 4), from_base))
    return (*out, differs) if good else None


def make(folder, only=""):
    summary = []
    for model, listed in cases().items():
        path = MODELS[model].replace("tests/golden/interventions", folder)
        oracle, memory, numbers = Oracle(os.path.join(ROOT, path)), {}, {}
        for i, (short, config, base) in enumerate(listed):
            name = f"{model}.{short}"
            if not name.startswith(only):
                continue
            why = []
            turn = i % len(INPUTS[model]) if model == "demo" else 0
            for image, question in INPUTS[model][turn:] + INPUTS[model][:turn]:
                found = try_case(oracle, memory, image, question, config, base, why)
                if found:
                    break
            else:
                sys.exit("\n    ".join([f"{name}: no input will do", *map(str, why)]))
            logits, tokens, run, differs = found
            if not config:
                oracle.compare_plain(image, question, logits, tokens)
            if model == "planted" and "var" in config and short != "var.tau":
                assert run.margins["var.tau"] > 0.2, run.margins
            numbers[name + ".logits"] = logits.numpy()
            prompt = oracle.prompt(image, question)
            summary.append(dict(name=name, model=MODELS[model], image=image, prompt=question, text=prompt.text,
                                config=config, ids=prompt.ids, tokens=tokens, differs=round(differs, 4),
                                margins={k: float(f"{m:.3g}") for k, m in run.margins.items()}, active=run.active))
            print(f"{name:36} input {len(why) - 1:2} differs {differs:8.4f} margins {summary[-1]['margins']} {run.active}",
                  flush=True)
        if numbers and not only:
            save_file(numbers, os.path.join(folder, model + ".safetensors"))
    if not only:
        lines = ",\n".join(json.dumps(c) for c in summary)
        with open(os.path.join(folder, "cases.json"), "w", encoding="utf-8") as f:
            f.write(f"[\n{lines}\n]\n")


def check(root):
    """Makes everything again and compares."""
    with tempfile.TemporaryDirectory() as again:
        plant(os.path.join(again, "planted"))
        make(again)
        a, b = (json.load(open(os.path.join(d, "cases.json"), encoding="utf-8")) for d in (again, root))
        keys = ("name", "model", "image", "prompt", "config", "ids", "tokens")
        assert [[c[k] for k in keys] for c in a] == [[c[k] for k in keys] for c in b]
        for model in MODELS:
            x, y = (load_file(os.path.join(d, model + ".safetensors")) for d in (again, root))
            assert x.keys() == y.keys() and max(float(np.abs(x[k] - y[k]).max()) for k in x) < 1e-3, model
    print("the same")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--check", action="store_true")
    ap.add_argument("--only", default="", metavar="NAME", help="show only the cases whose names begin so")
    args = ap.parse_args()
    torch.set_num_threads(1)
    root = os.path.join(HERE, "interventions")
    if args.check:
        return check(root)
    if not args.only:
        shutil.rmtree(root, ignore_errors=True)
    plant(os.path.join(root, "planted"))
    make(root, args.only)


if __name__ == "__main__":
    main()
