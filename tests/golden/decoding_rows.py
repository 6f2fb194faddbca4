"""Part of make_decoding.py: rows, i.e. sequences through the decoder of a LLaVA model, each step the whole sequence anew
without any KV cache, and the second rows ("branches") that methods of contrast need.
"""
import math
import os
import zlib

import numpy as np
import torch
from PIL import Image

from make_interventions import (DEFAULTS as EDITS, IMAGE, ROOT, Edited, Oracle, Prompt, Run, arrange, layer_set,
                                redistribute_act, redistribute_var, select_vhr, sinks_act)

DEFAULTS = {
    **EDITS,
    "pai": dict(EDITS["pai"], gamma=1.1, cutoff=0.1),
    "paint": dict(EDITS["paint"], gamma=1.1, cutoff=0.1),
    "vcd": dict(alpha=1.0, beta=0.1, noise_step=500, seed=0, first_token_only=False),
    "damro": dict(alpha=2.0, beta=0.1, tokens=10, block=-1, first_token_only=False),
    "causalmm": dict(gamma=1.0, epsilon=0.1, vision="uniform", vision_block=-1, language="off", language_layers="0-",
                     first_token_only=False),
    "icd": dict(alpha=1.0, beta=0.1, place="system",
                prefix="You are a confused objects detector to provide a fuzzy overview or impression of the image."),
    "lqcd": dict(alpha=1.0, beta=0.1, neutral=None),
    "dola": dict(layers=None, cutoff=0.1)}
OPERA = dict(candidates=5, scale=50.0, alpha=1.0, threshold=15, image_reward_len=10, score_scale=1e-7, score_fp16=True,
             logits_fp16=False, rollback_min=10, max_rollbacks=None, phi_max=0.0, first_candidates=None,
             share_hypotheses=False, clean_rejects=True, plain_fallback=True, threshold_strict=True, monotone=False,
             retry_full_vocab=True)
DEFAULTS["opera"] = OPERA
DECODE = dict(strategy="greedy", beams=1, length_penalty=1.0, early_stopping="heuristic", answers=1, repetition_penalty=1.0)
PLACES = ("cca", "mma")


def full(config):
    """(methods with all their options, decoding with all its)."""
    methods = {}
    for method, options in config.items():
        if method == "decode":
            continue
        assert set(options) <= set(DEFAULTS[method]), (method, options)
        methods[method] = {**DEFAULTS[method], **options}
    decode = config.get("decode", {})
    assert set(decode) <= set(DECODE), decode
    return methods, {**DECODE, **decode}


# ---- what branches are fed ------------------------------------------------------------------------------------------

def noise(count, seed):
    """VCD: the standard normal numbers of a picture with so many values, f32: xoshiro256** (its state splitmix64's of the
    seed's first output), Marsaglia's polar method."""
    mask = (1 << 64) - 1

    def splitmix(z):
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9 & mask
        z = (z ^ (z >> 27)) * 0x94d049bb133111eb & mask
        return z ^ (z >> 31)

    golden = 0x9e3779b97f4a7c15
    start = splitmix(seed + golden & mask)
    state = [splitmix(start + (i + 1) * golden & mask) for i in range(4)]

    def uniform():
        s1 = state[1]
        x = s1 * 5 & mask
        x = ((x << 7 | x >> 57) & mask) * 9 & mask
        t = s1 << 17 & mask
        state[2] ^= state[0]
        state[3] ^= state[1]
        state[1] ^= state[2]
        state[0] ^= state[3]
        state[2] ^= t
        state[3] = (state[3] << 45 | state[3] >> 19) & mask
        return (x >> 11) * 2.0 ** -53

    out = []
    while len(out) < count:
        u, v = 2 * uniform() - 1, 2 * uniform() - 1
        square = u * u + v * v
        if 0 < square < 1:
            scale = math.sqrt(-2 * math.log(square) / square)
            out += [u * scale, v * scale]
    return np.array(out[:count], np.float64)


def noised(pixels, step, seed):
    """VCD: the pixel tensor (1, 3, H, W) after `step` steps of diffusion."""
    y = np.linspace(-6, 6, 1000)
    beta = (0.005 - 1e-5) / (1 + np.exp(-y)) + 1e-5
    kept = float(np.prod(1 - beta[:step + 1]))
    eps = torch.from_numpy(noise(pixels.numel(), seed)).reshape(pixels.shape)
    return (math.sqrt(kept) * pixels.double() + math.sqrt(1 - kept) * eps).float()


def counterfactual_scale(attention, mode, side):
    """CausalMM: a scale for each image token from the attention maps (heads, 1 + K, 1 + K) of a ViT block."""
    m = attention.double()
    m = torch.full_like(m, float(m.mean())) if mode == "uniform" else m.amax((1, 2), keepdim=True) - m
    small = torch.nn.functional.interpolate(m[None], size=(side, side), mode="bilinear", align_corners=False)
    return small[0].mean(0).flatten().float()


def counterfactual_attention(a, visible, mode):
    """CausalMM: probabilities a (heads, rows, keys) of a decoder layer turned into their counterfactual."""
    if mode == "uniform":
        return (visible / visible.sum(-1, keepdim=True)).float().expand_as(a)
    turned = (a.amax(-1, keepdim=True) - a).masked_fill(~visible, 0)
    if mode == "reverse_normalised":
        total = turned.sum(-1, keepdim=True)
        turned = torch.where(total > 0, turned / total, a)
    return turned


# ---- rows -----------------------------------------------------------------------------------------------------------

class Plain(Run):
    """A row without any edit.  Keeps the last layer's probabilities, the largest of all heads."""

    def __init__(self, oracle, prompt):
        super().__init__()
        self.last_layer, self.margins = oracle.n_layers - 1, {}

    def probabilities(self, layer, a, visible):
        if layer == self.last_layer:
            self.largest = a.amax(0)
        return a


class Counterfactual(Plain):
    """CausalMM's language branch."""

    def __init__(self, oracle, prompt, o):
        super().__init__(oracle, prompt)
        self.mode, self.layers = o["language"], layer_set(o["language_layers"], oracle.n_layers)

    def probabilities(self, layer, a, visible):
        a = counterfactual_attention(a, visible, self.mode) if layer in self.layers else a
        return super().probabilities(layer, a, visible)


class Whole(Edited):
    """make_interventions.py's methods on the whole sequence at once: the rows from the prompt's last one on are those that
    were the last row of some pass; what was measured in the prompt is measured in the prompt's rows."""

    def __init__(self, oracle, prompt, methods):
        super().__init__(oracle, prompt, {m: o for m, o in methods.items() if m in EDITS})
        self.p = len(prompt.ids)

    def layer_input(self, layer, x):
        super().layer_input(layer, x[:self.p])

    def scores(self, layer, s):
        if not any(self.on(m, layer) for m in ("pai", "paint", "hgai")):
            return s
        rows = [s[:, :self.p - 1]]
        for i in range(self.p - 1, s.shape[1]):
            self.step = i - self.p + 1
            rows.append(super().scores(layer, s[:, i:i + 1]))
        self.step = 0
        return torch.cat(rows, 1)

    def probabilities(self, layer, a, visible):
        if self.on("var", layer):
            first = self.prompt.s + self.prompt.k
            new, _ = redistribute_var(a[:, first:], self.prompt.s, self.prompt.k, self.sinks[layer], self.c["var"],
                                      self.margins)
            a = torch.cat([a[:, :first], new], 1)
        if self.on("act", layer):
            o = self.c["act"]
            sinks = sinks_act(a[:, :self.p, :self.p], visible[:self.p, :self.p], o, self.margins)
            for head in range(len(a)):
                if o["heads"] is not None and [layer, head] not in o["heads"]:
                    sinks[head] = False
            a = torch.cat([a[:, :1], redistribute_act(a[:, 1:], sinks, o["beta"])], 1)
        if layer == self.n - 1:
            self.largest = a.amax(0)
        return a

    def heads(self, layer, o):
        self.heads_seen[layer] = o[:, -1].clone()
        o = o.clone()
        if self.on("vhr", layer):
            c = self.c["vhr"]
            seen = self.plain[layer] if c["measure"] == "unreinforced" else o[:, self.p - 1]
            chosen, _ = select_vhr(seen, self.without[layer], c, self.margins)
            o[chosen, self.p - 1 if c["prefill_rows"] == "last" else 0:] *= c["alpha"]
        for i, head in self.c.get("head_scale", dict(heads=[]))["heads"]:
            if i == layer:
                o[head] *= self.c["head_scale"]["scale"]
        return o


SHAKE = 2e-5


def shaken(x, *key):
    """x with noise of SHAKE of its largest value."""
    g = torch.Generator().manual_seed(zlib.crc32(repr(key).encode()))
    return x + SHAKE * x.abs().max() * torch.randn(x.shape, generator=g)


class Row:
    """A prompt that tokens are appended to.  shake: None, or a number for which its results are shaken a little."""

    shake = None

    def __init__(self, oracle, prompt, run, places):
        self.oracle, self.prompt, self.run, self.memory = oracle, prompt, run, {}
        self.positions, self.following, self.visible = arrange(len(prompt.ids), prompt.s, prompt.grid, places)

    @torch.no_grad()
    def after(self, tokens):
        """With these tokens after the prompt: dict with logits, hidden states (layers + 1, width; 0: embedding, no final
        norm) of the last token and the last layer's probabilities of the generated tokens' rows, largest of all heads."""
        tokens = tuple(tokens)
        if tokens not in self.memory:
            p, g = len(self.prompt.ids), len(tokens)
            embeds = self.prompt.embeds
            visible = torch.ones(p + g, p + g).tril().bool()
            visible[:p, :p] = self.visible
            if g:
                embeds = torch.cat([embeds, self.oracle.model.get_input_embeddings()(torch.tensor([tokens]))], 1)
            positions = torch.cat([self.positions, torch.arange(self.following, self.following + g)])
            last = self.oracle.forward(self.run, embeds, positions, visible, None)
            z = self.oracle.model.lm_head(last)
            vista = getattr(self.run, "c", {}).get("vista")
            if vista and vista["gamma"]:
                mixed = sorted(layer_set(vista["sla_layers"], self.oracle.n_layers))
                early = torch.stack([self.oracle.model.lm_head(self.run.blocks_seen[i]) for i in mixed]).mean(0)
                z = vista["gamma"] * early + (1 - vista["gamma"]) * z
            hidden = torch.stack([embeds[0, -1], *(self.run.blocks_seen[i] for i in range(self.oracle.n_layers))])
            self.memory[tokens] = dict(logits=z, hidden=hidden, rows=self.run.largest[p:].clone())
        out = self.memory[tokens]
        if self.shake is not None:
            out = {what: shaken(x, self.shake, tokens, what) if x.numel() else x for what, x in out.items()}
        return out


    @torch.no_grad()
    def fan(self, tokens, candidates):
        """Remembers after(tokens + [c]) for all candidates c, from one pass in which each sees only itself after `tokens`.
        To look for cases quickly; what is recorded comes from after() alone."""
        tokens, p, g, n = list(tokens), len(self.prompt.ids), len(tokens), len(candidates)
        visible = torch.ones(p + g + n, p + g + n).tril().bool()
        visible[:p, :p] = self.visible
        visible[p + g:, p + g:] = torch.eye(n).bool()
        new = self.oracle.model.get_input_embeddings()(torch.tensor([tokens + candidates]))
        positions = torch.cat([self.positions, torch.arange(self.following, self.following + g),
                               torch.full((n,), self.following + g)])
        last = self.oracle.forward(self.run, torch.cat([self.prompt.embeds, new], 1), positions, visible, None, rows=n)
        logits, seen = self.oracle.model.lm_head(last), self.run.largest
        for i, token in enumerate(candidates):
            above = torch.nn.functional.pad(seen[p:p + g, :p + g], (0, 1))
            own = torch.cat([seen[p + g + i, :p + g], seen[p + g + i, p + g + i:p + g + i + 1]])
            self.memory[(*tokens, token)] = dict(logits=logits[i], rows=torch.cat([above, own[None]]))


class Decoder(Oracle):
    """Oracle that builds all kinds of prompts."""

    def __init__(self, folder):
        super().__init__(folder)
        self.side = self.config.vision_config.image_size // self.config.vision_config.patch_size
        self.eos = self.config.text_config.eos_token_id
        self.seen = {}

    def forward(self, run, embeds, positions, visible, cache, rows=None):
        """As Oracle's; with `rows` the last so many rows."""
        self.run = run
        self.plain_attention(False)
        mask = torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.float32).min)[None, None]
        out = self.text(inputs_embeds=embeds, position_ids=positions[None], attention_mask=mask, past_key_values=cache,
                        use_cache=cache is not None).last_hidden_state[0]
        return out[-rows:] if rows else out[-1]

    @torch.no_grad()
    def see(self, image, pixels=None):
        """The image encoder's outputs for a file or a picture: pixels, hidden states, attentions, features, tokens."""
        key = image if isinstance(image, str) and pixels is None else None
        if key in self.seen:
            return self.seen[key]
        if pixels is None:
            picture = Image.open(os.path.join(ROOT, image)) if isinstance(image, str) else image
            pixels = self.processor.image_processor(picture.convert("RGB"), return_tensors="pt").pixel_values
        out = self.model.model.vision_tower(pixels, output_attentions=True, output_hidden_states=True)
        features = out.hidden_states[self.config.vision_feature_layer][:, 1:]
        seen = dict(pixels=pixels, hidden=out.hidden_states, attentions=[a[0] for a in out.attentions], features=features,
                    tokens=self.model.model.multi_modal_projector(features))
        assert torch.equal(seen["tokens"][0], self.model.model.get_image_features(pixels)[0])
        if key:
            self.seen[key] = seen
        return seen

    @torch.no_grad()
    def prompt_of(self, text, *images):
        """The prompt `text` with its placeholders filled; an image is (tokens (1, k, width), attentions)."""
        ids, pieces, first = [], [], -1
        raw = self.processor.tokenizer(text)["input_ids"]
        images = list(images)
        single = images[0] if len(images) == 1 else None
        for i in raw:
            if i == self.config.image_token_index:
                tokens = images.pop(0)["tokens"]
                first = len(ids) if single else -1
                ids += [i] * tokens.shape[1]
                pieces.append(tokens)
            else:
                ids.append(i)
                pieces.append(self.model.get_input_embeddings()(torch.tensor([[i]])))
        assert not images
        k = single["tokens"].shape[1] if single else 0
        grid = (self.side, self.side) if k in (0, self.side * self.side) else (1, k)
        cls = [a[:, 0, 1:].sum(0) for a in single["attentions"]] if single and "attentions" in single else None
        out = Prompt(ids, torch.cat(pieces, 1), first, grid, cls)
        out.text = text
        return out

    def damro_order(self, seen, block, margins=None, count=None):
        """Image tokens in the order of the class token's pseudo single-head attention, largest first."""
        block = self.feature_block if block == -1 else block
        layer = self.model.model.vision_tower.vision_model.encoder.layers[block]
        with torch.no_grad():
            x = layer.layer_norm1(seen["hidden"][block][0])
            q, k = layer.self_attn.q_proj(x[:1]).double(), layer.self_attn.k_proj(x).double()
        a = torch.softmax(q @ k.T * k.shape[1] ** -0.5, -1)[0, 1:]
        order = torch.sort(a, descending=True, stable=True)
        if margins is not None and count:
            top = order.values[:count + 1]
            margins.note("damro.order", 1 - top[1:] / top[:-1])
        return order.indices, a


def conversation(question, images=1):
    return "USER: " + f"{IMAGE}\n" * images + f"{question} ASSISTANT:"


# ---- the logits tokens are chosen from ------------------------------------------------------------------------------

def bound(z, share):
    """Below this a token is less likely than `share` of the most likely one."""
    return (math.log(share) if share else -torch.inf) + z.max()


def dola(oracle, hidden, z, o):
    """(contrasted logits, what is cut off, hidden state chosen, how clearly, what KL(.||M) would have chosen)."""
    candidates = range(0, oracle.n_layers, 2) if o["layers"] is None else o["layers"]
    with torch.no_grad():
        early = torch.stack([oracle.model.lm_head(hidden[k]) for k in candidates])
    mature, early = torch.log_softmax(z.double(), -1), torch.log_softmax(early.double(), -1)
    p, q = mature.exp(), early.exp()
    m = (p + q) / 2
    d = 0.5 * ((m * (m.log() - mature)).mean(-1) + (m * (m.log() - early)).mean(-1))
    other = 0.5 * ((p * (mature - m.log())).mean(-1) + (q * (early - m.log())).mean(-1))
    best = int(d.argmax())
    clear = float(1 - d.topk(2).values[1] / d.max()) if len(d) > 1 else 1.0
    cut = z < bound(z, o["cutoff"])
    return (mature - early[best]).float(), cut, candidates[best], clear, candidates[int(other.argmax())]


class Request:
    """A question about an image with a configuration: the main row and its branches."""

    def __init__(self, oracle, image, question, methods, margins):
        self.oracle, self.methods, self.margins = oracle, methods, margins
        self.image, self.question = image, question
        seen = oracle.see(image)
        places = {m: o for m, o in methods.items() if m in PLACES}
        asked = methods["lqcd"]["neutral"] if "lqcd" in methods else question
        prompt = oracle.prompt_of(conversation(asked), seen)
        edited = any(m in EDITS for m in methods)
        run = Whole(oracle, prompt, methods) if edited else Plain(oracle, prompt)
        if edited:
            for kind, margin in run.margins.items():
                margins.note(kind, margin)
            run.margins = margins
        self.prompt, self.main = prompt, Row(oracle, prompt, run, places)
        self.branches = []          # (weight, cut-off, only the first token, row)

        def branch(weight, cutoff, prompt, run=None, once=False):
            run = run or Plain(oracle, prompt)
            self.branches.append((weight, cutoff, once, Row(oracle, prompt, run, places if prompt.s >= 0 else {})))

        for method, o in methods.items():
            if method == "vcd":
                pixels = noised(seen["pixels"], o["noise_step"], o["seed"])
                branch(o["alpha"], o["beta"], oracle.prompt_of(conversation(question), oracle.see("", pixels)),
                       once=o["first_token_only"])
            elif method == "damro":
                order, _ = oracle.damro_order(seen, o["block"], margins, o["tokens"])
                few = dict(tokens=seen["tokens"][:, order[:o["tokens"]]])
                branch(o["alpha"], o["beta"], oracle.prompt_of(conversation(question), few), once=o["first_token_only"])
            elif method == "causalmm":
                if o["vision"] != "off":
                    block = oracle.feature_block if o["vision_block"] == -1 else o["vision_block"]
                    w = counterfactual_scale(seen["attentions"][block], o["vision"], oracle.side)
                    with torch.no_grad():
                        tokens = oracle.model.model.multi_modal_projector(seen["features"] * w[None, :, None])
                    branch(o["gamma"], o["epsilon"], oracle.prompt_of(conversation(question), dict(tokens=tokens)),
                           once=o["first_token_only"])
                if o["language"] != "off":
                    branch(o["gamma"], o["epsilon"], prompt, Counterfactual(oracle, prompt, o), o["first_token_only"])
            elif method == "icd":
                text = o["prefix"] + " " + (conversation(question) if o["place"] == "system" else question)
                text = text if o["place"] == "system" else conversation(text)
                branch(o["alpha"], o["beta"], oracle.prompt_of(text, seen))
            elif method == "lqcd":
                branch(o["alpha"], o["beta"], oracle.prompt_of(conversation(question), seen))
            elif method in ("pai", "paint") and o["gamma"] != 1:
                branch(o["gamma"] - 1, o["cutoff"], prompt.without_image())
        self.layers_chosen, self.layers_other = {}, {}

    def combine(self, tokens):
        """(main row's logits, combined ones, the same with -inf where something cuts off, least distance to a bound)."""
        main = self.main.after(tokens)
        raw = z = main["logits"]
        cut, bounds = torch.zeros_like(z, dtype=torch.bool), []
        if "dola" in self.methods:
            o = self.methods["dola"]
            z, cut, chosen, clear, other = dola(self.oracle, main["hidden"], raw, o)
            if o["cutoff"]:
                bounds.append((raw, bound(raw, o["cutoff"])))
            self.margins.note("dola.layer", clear)
            self.layers_chosen[len(tokens)], self.layers_other[len(tokens)] = chosen, other
        cut_z = z.masked_fill(cut, -torch.inf)
        out = z
        for weight, cutoff, once, row in self.branches:
            n = z if once and len(tokens) else row.after(tokens)["logits"]
            out = out + weight * (z - n)
            cut = cut | (cut_z < bound(cut_z, cutoff))
            if cutoff:
                bounds.append((cut_z, bound(cut_z, cutoff)))
        # How far from its bound every token is: kept ones the least, cut ones the farthest below
        if bounds:
            size = float(raw.abs().max())
            over = torch.stack([(x - b) / size for x, b in bounds]).double()
            self.slack = torch.where(cut, (-over).amax(0), over.amin(0))
        else:
            self.slack = torch.full(z.shape, torch.inf, dtype=torch.float64)
        return raw, out, out.masked_fill(cut, -torch.inf)

    def argmax_margin(self, out, final):
        """How far the choice of the largest is from another one: the runner-up, or a token the cut-offs took out."""
        best = int(final.argmax())
        size = float(final[final.isfinite()].abs().max())
        behind = (final[best] - out).double() / size
        needs = torch.where(final.isfinite(), behind, torch.maximum(behind, self.slack))
        needs[best] = self.slack[best]
        return float(needs.min())
