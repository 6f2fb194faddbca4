"""Short stage that makes places readable: trains projector and training-only heads on cached features.

The vision tower is frozen.  Besides the heads' losses (category, place, box, count) a penalty keeps the
projector's RMS-normalised output close to what it was, so that the decoder still understands it.
"""
import argparse

import numpy as np
import torch
import torch.nn.functional as F

import language
import scenes
from model import DemoModel
from train import save


def features(model, seed0, n):
    """Tower output and targets of every object patch, and of as many background patches (class 0)."""
    rows = []
    for start in range(seed0, seed0 + n, 50):
        batch = [scenes.scene(s) for s in range(start, start + 50)]
        with torch.no_grad():
            hidden, _ = model.see(torch.from_numpy(np.stack([sc["image"] for sc in batch])))
        for sc, h in zip(batch, hidden[:, 1:]):
            cls, target = scenes.patch_targets(sc)
            alpha = {scenes.INDEX[o["name"]] + 1: o["alpha"] for o in sc["objects"]}
            seen = np.array([c == 0 or alpha[c] > 0.15 for c in cls])
            empty = np.cumsum(cls == 0) <= (cls > 0).sum()
            pick = torch.from_numpy(seen & ((cls > 0) | empty))
            rows.append((h[pick], torch.from_numpy(cls)[pick], torch.from_numpy(target)[pick]))
    return [torch.cat(v) for v in zip(*rows)]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("init")
    ap.add_argument("out")
    ap.add_argument("--scenes", type=int, default=1500)
    ap.add_argument("--seed0", type=int, default=30_000_000)
    ap.add_argument("--steps", type=int, default=600)
    ap.add_argument("--keep", type=float, default=0.5, help="weight of staying close to the old output")
    args = ap.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(2)
    model = DemoModel(language.Language().vocab, len(scenes.NAMES))
    model.load_state_dict(torch.load(args.init)["model"])
    x, cls, target = features(model, args.seed0, args.scenes)

    def project(h):
        return F.rms_norm(model.mm2(F.gelu(model.mm0(h))), (model.mm2.out_features,))

    with torch.no_grad():
        old = project(x)
    params = [p for m in (model.mm0, model.mm2, model.heads) for p in m.parameters()]
    opt = torch.optim.AdamW(params, lr=3e-3, betas=(0.9, 0.98), weight_decay=0.1)
    for step in range(args.steps):
        for g in opt.param_groups:
            g["lr"] = 3e-3 * min(1, (step + 1) / 30, (args.steps - step) / (0.5 * args.steps))
        i = torch.randint(len(x), (2048,))
        z, y, t = project(x[i]), cls[i], target[i]
        fg = y > 0
        parts = [F.cross_entropy(model.heads.classes(z), y), F.cross_entropy(model.heads.place(z[fg]), t[fg, 4].long()),
                 F.smooth_l1_loss(model.heads.box(z[fg]), t[fg, :3], beta=0.1),
                 F.cross_entropy(model.heads.count(z[fg]), t[fg, 3].long()), F.mse_loss(z, old[i])]
        loss = 0.5 * parts[0] + 2 * parts[1] + 4 * parts[2] + 0.5 * parts[3] + args.keep * parts[4]
        opt.zero_grad()
        loss.backward()
        opt.step()
        if (step + 1) % 100 == 0:
            right = (model.heads.place(z[fg]).argmax(-1) == t[fg, 4]).float().mean()
            print(step + 1, "class %.3f place %.3f box %.4f count %.3f keep %.3f" % tuple(p.item() for p in parts),
                  "place right %.3f" % right.item(), flush=True)
    args.stage = "full"
    save(args.out, model, 0, args)


if __name__ == "__main__":
    main()
