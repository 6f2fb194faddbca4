"""Convert a checkpoint of the prototype (prototype/train.py) to the layout of train.py.

The prototype normalised pixels by (x - 0.5) / 0.26; CLIP's mean and deviation are folded in exactly (patch
weights scaled per channel, the constant part added to the position embeddings).  Rows of the token embedding
and of the output matrix are carried over by the text of the piece; new pieces and the training-only heads
start at random (seed 1).
"""
import argparse
import json

import torch

import scenes
import tokenizer
from model import CLIP_MEAN, CLIP_STD, DemoModel


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("checkpoint", help="the prototype's checkpoint")
    ap.add_argument("tokens", help="the prototype's tok.json")
    ap.add_argument("out")
    args = ap.parse_args()
    old = torch.load(args.checkpoint, map_location="cpu")["sd"]
    with open(args.tokens, encoding="utf-8") as f:
        pieces = json.load(f)["pieces"]
    torch.manual_seed(1)
    tok = tokenizer.Tokenizer()
    model = DemoModel(len(tok.pieces), len(scenes.NAMES))
    new = model.state_dict()

    def put(name, value):
        assert new[name].shape == value.shape, (name, new[name].shape, value.shape)
        new[name] = value.clone().float()

    mean, std = torch.tensor(CLIP_MEAN).view(1, 3, 1, 1), torch.tensor(CLIP_STD).view(1, 3, 1, 1)
    patch = old["vit.patch.weight"].view(-1, 3, 14, 14)
    put("vision.patch_embedding.weight", patch * std / 0.26)
    put("vision.class_embedding", old["vit.cls"])
    position = old["vit.pos"].clone()
    position[1:] += (patch * (mean - 0.5) / 0.26).sum((1, 2, 3))
    put("vision.position_embedding", position)
    for part in ("weight", "bias"):
        put(f"vision.pre_layrnorm.{part}", old[f"vit.pre.{part}"])
        put(f"mm0.{part}", old[f"p1.{part}"])
        put(f"mm2.{part}", old[f"p2.{part}"])
        for i in range(len(model.vision.layers)):
            a, b = f"vision.layers.{i}.", f"vit.blk.{i}."
            for n, v in zip("qkv", old[b + "qkv." + part].chunk(3)):
                put(f"{a}{n}.{part}", v)
            for n, m in (("ln1", "n1"), ("ln2", "n2"), ("out", "o"), ("fc1", "f1"), ("fc2", "f2")):
                put(f"{a}{n}.{part}", old[f"{b}{m}.{part}"])
    for i in range(len(model.blocks)):
        a, b = f"blocks.{i}.", f"blk.{i}."
        for n, v in zip("qkv", old[b + "qkv.weight"].chunk(3)):
            put(f"{a}{n}.weight", v)
        for n, v in zip(("gate", "up"), old[b + "gu.weight"].chunk(2)):
            put(f"{a}{n}.weight", v)
        put(a + "o.weight", old[b + "o.weight"])
        put(a + "down.weight", old[b + "dn.weight"])
        put(a + "attn_norm.weight", old[b + "n1.w"])
        put(a + "ffn_norm.weight", old[b + "n2.w"])
    put("norm.weight", old["nf.w"])
    where = {p: i for i, p in enumerate(pieces)}
    spread = old["emb.weight"].std()
    new["embed.weight"].normal_(std=float(spread))
    kept = 0
    for i, p in enumerate(tok.pieces):
        if p in where:
            new["embed.weight"][i] = old["emb.weight"][where[p]]
            new["output.weight"][i] = old["head.weight"][where[p]]
            kept += 1
    torch.save(dict(model=new, step=0, args=vars(args)), args.out)
    print(f"{kept} of {len(tok.pieces)} pieces carried over")


if __name__ == "__main__":
    main()
