"""Trainer of the demo model.  Two stages, both seeded:

  vision   vision tower + projector, with training-only heads (category, place, box, count per patch)
  full     everything, on captions and questions; starts from the checkpoint --init

The learning rate warms up, stays constant and falls linearly over the last --decay steps.  Progress is
counted in steps, so the process may be stopped and continued.  Writing a number to OUT.steps changes
the total number of steps of a running job (the value used is logged and kept in the checkpoint).
"""
import argparse
import os
import random
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F

import scenes
from model import DemoModel
from muon import Muon


VISION_SIDE = ("vision", "mm", "heads")


def save(path, model, step, args):
    """Atomic checkpoint."""
    state = {k: v for k, v in model.state_dict().items() if args.stage == "full" or k.startswith(VISION_SIDE)}
    torch.save(dict(model=state, step=step, args=vars(args)), path + ".tmp")
    os.replace(path + ".tmp", path)


def vision_loss(heads, batch):
    """Loss of the training-only heads; returns (loss, parts for the log)."""
    cls, place, box, count, presence = heads
    pairs = [scenes.patch_targets(sc) for sc in batch]
    y = torch.from_numpy(np.stack([p[0] for p in pairs]))
    t = torch.from_numpy(np.stack([p[1] for p in pairs]))
    there = torch.zeros(len(batch), len(scenes.NAMES))
    for i, sc in enumerate(batch):
        for o in sc["objects"]:
            there[i, scenes.INDEX[o["name"]]] = 1
    weight = torch.ones(cls.shape[-1])
    weight[0] = 0.3
    fg = y > 0
    l_cls = F.cross_entropy(cls.flatten(0, 1), y.flatten(), weight)
    l_place = F.cross_entropy(place[fg], t[..., 4][fg].long())
    l_box = F.smooth_l1_loss(box[fg], t[..., :3][fg], beta=0.1)
    l_count = F.cross_entropy(count[fg], t[..., 3][fg].long())
    l_there = F.binary_cross_entropy_with_logits(presence, there)
    with torch.no_grad():
        parts = dict(cls=l_cls.item(), place=l_place.item(), box=l_box.item(), count=l_count.item(),
                     there=l_there.item(), acc=(cls.argmax(-1) == y)[fg].float().mean().item())
    return l_cls + 0.5 * l_place + 4 * l_box + 0.5 * l_count + 5 * l_there, parts


def optimisers(model, args, vision_only):
    """Muon for the hidden matrices, AdamW for the rest; in stage full AdamW for all of the vision side, slower."""
    muon, rest = [], []
    for name, p in model.named_parameters():
        vision = name.startswith(VISION_SIDE)
        if vision_only and not vision:
            continue
        scale = args.vision_scale if vision and not vision_only else 1.0
        hidden = p.dim() == 2 and (vision_only or not vision) and ("layers." in name or "blocks." in name or name.startswith("mm"))
        decay = args.wd if p.dim() >= 2 and "position" not in name and "embed" not in name else 0.0
        (muon if hidden else rest).append(dict(params=[p], weight_decay=decay, scale=scale))
    return [Muon(muon, lr=args.lr),
            torch.optim.AdamW(rest, lr=args.lr, betas=(0.9, 0.98), eps=1e-8)]


def learning_rate(args, step):
    """Warm-up, plateau, linear decay to a hundredth."""
    left = max(0.0, min(1.0, (args.steps - step) / args.decay))
    return args.lr * min(1.0, (step + 1) / args.warmup) * (0.01 + 0.99 * left)


class Threads:
    """Use a second thread only while the other processes leave a core free (Linux; else always `most`)."""

    def __init__(self, most):
        self.most, self.last = most, None
        torch.set_num_threads(most)

    def adapt(self):
        if self.most < 2 or not os.path.exists("/proc/stat"):
            return
        with open("/proc/stat", encoding="utf-8") as f:
            v = [int(x) for x in f.readline().split()[1:9]]
        now = ((sum(v) - v[3] - v[4]) / os.sysconf("SC_CLK_TCK") - sum(os.times()[:2]), time.time())
        if self.last and now[1] > self.last[1]:
            others = (now[0] - self.last[0]) / (now[1] - self.last[1])
            torch.set_num_threads(self.most if others < (os.cpu_count() or 2) - 1.4 else 1)
        self.last = now


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--stage", choices=("vision", "full"), required=True)
    ap.add_argument("--out", required=True, help="checkpoint to write")
    ap.add_argument("--init", help="checkpoint to start from (weights only)")
    ap.add_argument("--steps", type=int, default=1500)
    ap.add_argument("--decay", type=int, default=300)
    ap.add_argument("--warmup", type=int, default=100)
    ap.add_argument("--batch", type=int, default=64)
    ap.add_argument("--questions", type=int, default=2, help="question segments per image (stage full)")
    ap.add_argument("--lr", type=float, default=2e-3)
    ap.add_argument("--wd", type=float, default=0.05)
    ap.add_argument("--vision-scale", type=float, default=0.4, help="factor on the vision side's rate in stage full")
    ap.add_argument("--aux", type=float, default=0.3, help="weight of the vision heads' loss in stage full")
    ap.add_argument("--seed0", type=int, default=scenes.TRAIN_SEED0, help="first scene seed")
    ap.add_argument("--cca", action="store_true", help="concentric causal attention: ring positions and ring mask")
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--every", type=int, default=50, help="steps between log lines")
    ap.add_argument("--save-every", type=int, default=200)
    ap.add_argument("--pid-file")
    args = ap.parse_args()
    if args.seed0 < scenes.TRAIN_SEED0:
        sys.exit("seeds below TRAIN_SEED0 are held out")
    if args.pid_file:
        with open(args.pid_file, "w", encoding="utf-8") as f:
            f.write(str(os.getpid()))
    threads = Threads(args.threads)
    torch.manual_seed(1)
    import language
    lang = language.Language()
    model = DemoModel(lang.vocab, len(scenes.NAMES), args.cca)
    if args.init:
        model.load_state_dict(torch.load(args.init)["model"], strict=False)
    rng = random.Random(args.seed0)
    opts = optimisers(model, args, args.stage == "vision")
    trained = [p for o in opts for g in o.param_groups for p in g["params"]]
    print("parameters", sum(p.numel() for p in trained), args, flush=True)
    seed, step, total, n, t0, pool = args.seed0, 0, {}, 0, time.time(), []
    while step < args.steps:
        rate = learning_rate(args, step)
        for o in opts:
            for g in o.param_groups:
                g["lr"] = rate * g["scale"]
        if not pool:
            pool = [scenes.scene(seed + i) for i in range(4 * args.batch)]
            seed += len(pool)
            if args.stage == "full":      # batches of similar caption length, in random order
                for sc in pool:
                    sc["caption"] = lang.caption_segment(sc, rng)
                pool.sort(key=lambda sc: len(sc["caption"][0]))
            pool = [pool[i::4] if args.stage == "vision" else pool[i * args.batch:(i + 1) * args.batch]
                    for i in range(4)]
            rng.shuffle(pool)
        batch = pool.pop()
        threads.adapt()
        images = torch.from_numpy(np.stack([sc["image"] for sc in batch]))
        hidden, projected = model.see(images)
        loss, parts = vision_loss(model.heads(hidden, projected), batch)
        if args.stage == "full":
            text, more = lang.loss(model, projected, batch, args.questions, rng)
            loss, parts = text + args.aux * loss, dict(parts, **more)
        for o in opts:
            o.zero_grad(set_to_none=True)
        loss.backward()
        parts["norm"] = torch.nn.utils.clip_grad_norm_(trained, 1.0).item()
        for o in opts:
            o.step()
        step += 1
        n += 1
        for k, v in parts.items():
            total[k] = total.get(k, 0.0) + v
        if step % args.every == 0:
            print(time.strftime("%H:%M:%S"), f"step {step} images {step * args.batch} {(time.time() - t0) / n:.3f} s/step",
                  f"lr {rate:.1e}", " ".join(f"{k} {v / n:.4f}" for k, v in total.items()), flush=True)
            total, n, t0 = {}, 0, time.time()
            if os.path.exists(args.out + ".steps"):
                with open(args.out + ".steps", encoding="utf-8") as f:
                    new = int(f.read())
                if new != args.steps:
                    print(f"total steps {args.steps} -> {new}", flush=True)
                    args.steps = new
        if step % args.save_every == 0:
            save(args.out, model, step, args)
    save(args.out, model, step, args)
    print("done", step, flush=True)


if __name__ == "__main__":
    main()
