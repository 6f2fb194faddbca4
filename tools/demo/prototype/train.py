"""Trainer of the prototype: stages vit and lm."""
import torch
import torch.nn.functional as F
import time
import random
import numpy as np
import math
import argparse
import os
import scenes
import tok
from model import *

ap = argparse.ArgumentParser()
ap.add_argument("--stage", default="vit")
ap.add_argument("--minutes", type=float, default=8)
ap.add_argument("--bs", type=int, default=64)
ap.add_argument("--lr", type=float, default=1e-3)
ap.add_argument("--d", type=int, default=192)
ap.add_argument("--L", type=int, default=6)
ap.add_argument("--h", type=int, default=6)
ap.add_argument("--m", type=int, default=512)
ap.add_argument("--vd", type=int, default=160)
ap.add_argument("--vL", type=int, default=5)
ap.add_argument("--vh", type=int, default=5)
ap.add_argument("--K", type=int, default=5)
ap.add_argument("--vitck", default="vit.pt")
ap.add_argument("--out", default="vit.pt")
ap.add_argument("--seed0", type=int, default=10_000_000)
ap.add_argument("--bf16", type=int, default=0)
ap.add_argument("--bench", type=int, default=0)
ap.add_argument("--cca", type=int, default=0)
ap.add_argument("--ylw", type=float, default=3.0)
ap.add_argument("--aux", type=float, default=0.3)
ap.add_argument("--wd", type=float, default=0.05)
ap.add_argument("--init", default="")
ap.add_argument("--threads", type=int, default=2)
A = ap.parse_args()
torch.set_num_threads(A.threads)
torch.manual_seed(1)
scenes.bank()


def log(*a):
    s = time.strftime("%H:%M:%S ") + " ".join(str(x) for x in a)
    print(s, flush=True)


T = tok.Tok()
VC = dict(d=A.vd, L=A.vL, h=A.vh, m=4 * A.vd, nc=scenes.NC)
seed = [A.seed0]
pr = random.Random(A.seed0)


def images(n):
    L = [scenes.scene(seed[0] + i) for i in range(n)]
    seed[0] += n
    return L


def vit_targets(L):
    pt = torch.from_numpy(np.stack([x["patch"] for x in L])).view(len(L), 64)
    m = torch.zeros(len(L), scenes.NC)
    for i, x in enumerate(L):
        for o in x["objs"]:
            m[i, scenes.ID[o[0]]] = 1
    loc = torch.from_numpy(np.stack([x["loc"] for x in L])).view(len(L), 64, 4)
    return (pt, loc), m


def vit_loss(pl, cl, pt, m):
    pl, lo, kn = pl
    pt, loc = pt
    fg = pt > 0
    global extra
    l1 = F.smooth_l1_loss(lo.float()[fg], loc[..., :3][fg], beta=0.1)
    l2 = F.cross_entropy(kn.float()[fg], loc[..., 3][fg].long())
    extra = (l1.item(), l2.item())
    A_, B_ = vit_loss0(pl, cl, pt, m)
    return A_ + 4 * l1 + 0.5 * l2, B_


def vit_loss0(pl, cl, pt, m):
    w = torch.ones(scenes.NC + 1)
    w[0] = 0.3
    return (
        F.cross_entropy(pl.flatten(0, 1).float(), pt.flatten(), w),
        F.binary_cross_entropy_with_logits(cl.float(), m) * 10,
    )


PRE = [1] + T.enc("USER: ")
N0 = len(PRE)


def seg(q, a):
    p = T.enc(f"\n{q} ASSISTANT:")
    f = T.enc(f"\n{q} ASSISTANT: {a}") + [2]
    assert f[: len(p)] == p
    return f, len(p)


def text_batch(L, K):
    C = []
    Q = []
    for x in L:
        r = pr.random()
        q = scenes.CAPQ[0 if r < 0.75 else 1 if r < 0.9 else 2]
        C.append(seg(q, scenes.caption(x, pr, short=q == scenes.CAPQ[2])[0]))
        Q += [seg(*z) for z in scenes.questions(x, pr, K)]

    def pad(S, w):
        n = max(len(f) for f, _ in S) - 1
        X = torch.zeros(len(S), n, dtype=torch.long)
        Y = torch.full((len(S), n), -1, dtype=torch.long)
        for i, (f, p) in enumerate(S):
            X[i, : len(f) - 1] = torch.tensor(f[:-1])
            Y[i, p - 1 : len(f) - 1] = torch.tensor(f[p:])
        return X, Y

    X, Y = pad(C, 1)
    XQ, YQ = pad(Q, 1)
    return X, Y, XQ, YQ


def causal(n):
    return torch.triu(torch.full((n, n), -1e9), 1)


vit_only = A.stage == "vit"
model = ViT(**VC) if vit_only else VLM(T.n, A.d, A.L, A.h, A.m, VC, bool(A.cca))
if not vit_only and A.init:
    print(model.load_state_dict(torch.load(A.init)["sd"], strict=False))
elif not vit_only and A.vitck:
    print(model.vit.load_state_dict(torch.load(A.vitck)["sd"], strict=False))
log(
    A,
    "params",
    sum(p.numel() for p in model.parameters()),
    "vit",
    sum(p.numel() for n, p in model.named_parameters() if vit_only or n.startswith("vit")),
)


def group():
    d = []
    n = []
    v = []
    for k, p in model.named_parameters():
        (n if p.dim() < 2 or "pos" in k or "emb" in k else v if (k.startswith("vit.")) else d).append(p)
    return [
        dict(params=d, weight_decay=A.wd, s=1.0),
        dict(params=n, weight_decay=0.0, s=1.0),
        dict(params=v, weight_decay=A.wd, s=1.0 if vit_only else 0.4),
    ]


opt = torch.optim.AdamW(group(), lr=A.lr, betas=(0.9, 0.98), eps=1e-8)
BUD = A.minutes * 60
t0 = time.time()
step = 0
acc = {}
nacc = 0


def lr_at(f, step):
    return A.lr * min(1, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1, f))))


def lm_loss(L):
    img = torch.from_numpy(np.stack([x["img"] for x in L]))
    B = len(L)
    pen, pl, cl = model.vit(img)
    pt, m = vit_targets(L)
    a, b = vit_loss(pl, cl, pt, m)
    X, Y, XQ, YQ = text_batch(L, A.K)
    Lc = X.shape[1]
    Lq = XQ.shape[1]
    K = A.K
    pp, mp, nxt = model.pre_pos_mask(N0)
    Pn = N0 + 64
    x = torch.cat([model.prefix(torch.tensor(PRE)[None], pen), model.emb(X), model.emb(XQ).view(B, K * Lq, -1)], 1)
    pos = torch.cat([pp, nxt + torch.arange(Lc)] + [nxt + torch.arange(Lq)] * K)
    c, n = rope_tab(pos, model.hd)
    dt = torch.bfloat16 if A.bf16 else torch.float32
    mc = F.pad(causal(Lc), (Pn, 0)).to(dt)
    blk = torch.full((K * Lq, K * Lq), -1e9)
    for i in range(K):
        blk[i * Lq : (i + 1) * Lq, i * Lq : (i + 1) * Lq] = causal(Lq)
    mq = F.pad(blk, (Pn, 0)).to(dt)
    mp = mp.to(dt)
    c, n = c.to(dt), n.to(dt)
    x = x.to(dt)
    for bl in model.blk:
        x = bl(x, c, n, Pn, Lc, K, Lq, mp, mc, mq)
    y = torch.cat([Y.flatten(), YQ.flatten()])
    _, h1, h2 = x.split([Pn, Lc, K * Lq], 1)
    hdn = torch.cat([h1.flatten(0, 1), h2.flatten(0, 1)], 0)
    sel = (y >= 0).nonzero()[:, 0]
    lg = model.head(model.nf(hdn[sel])).float()
    ys = y[sel]
    ls = F.cross_entropy(lg, ys, reduction="none")
    isq = sel >= B * Lc
    iseos = ys == 2
    w = torch.where(isq & ~iseos, A.ylw, torch.where(isq, 0.1, 1.0))
    loss = (ls * w).sum() / w.sum()
    aq = isq & ~iseos
    st = dict(
        lm=ls[~isq].mean().item(),
        qa=ls[aq].mean().item(),
        qacc=(lg[aq].argmax(-1) == ys[aq]).float().mean().item(),
        patch=a.item(),
        cls=b.item(),
        loc=extra[0],
        knd=extra[1],
    )
    return loss + A.aux * (a + 0.5 * b), st


def cpu():
    v = [int(z) for z in open("/proc/stat").readline().split()[1:9]]
    return (sum(v) - v[3] - v[4]) / 100.0, sum(os.times()[:2]), time.time()


cp = cpu()
nthr = A.threads
sw = [0, 0]
while True:
    if (
        step and step % 8 == 0 and A.threads == 2
    ):  # other builds on the 2 cores: a second OpenMP thread only pays when a core is idle
        q_ = cpu()
        oth = ((q_[0] - cp[0]) - (q_[1] - cp[1])) / max(1e-3, q_[2] - cp[2])
        cp = q_
        w = 1 if oth > 0.35 else 2
        if w != nthr:
            nthr = w
            torch.set_num_threads(w)
            log("others use %.2f cores -> %d threads at step %d" % (oth, w, step))
    f = (time.time() - t0) / BUD
    if f >= 1 or (A.bench and step >= A.bench):
        break
    for g in opt.param_groups:
        g["lr"] = lr_at(f, step) * g["s"]
    td = time.time()
    L = images(A.bs)
    td = time.time() - td
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bool(A.bf16)):
        if vit_only:
            pen, pl, cl = model(torch.from_numpy(np.stack([x["img"] for x in L])))
            pt, m = vit_targets(L)
            a, b = vit_loss(pl, cl, pt, m)
            loss = a + b
            fg = pt[0] > 0
            st = dict(
                patch=a.item(),
                cls=b.item(),
                loc=extra[0],
                knd=extra[1],
                pacc=(pl[0].argmax(-1) == pt[0])[fg].float().mean().item(),
            )
        else:
            loss, st = lm_loss(L)
    opt.zero_grad(set_to_none=True)
    loss.backward()
    gn = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    opt.step()
    step += 1
    st["gn"] = gn.item()
    st["data_s"] = td
    for k, v in st.items():
        acc[k] = acc.get(k, 0) + v
    nacc += 1
    every = 5 if A.bench else 50
    if step % every == 0:
        el = time.time() - t0
        log(
            f"step {step} t {el:.0f}s {el/step:.3f} s/step imgs {step*A.bs} lr {lr_at(f,step):.2e} "
            + " ".join(f"{k} {v/nacc:.4f}" for k, v in acc.items())
        )
        acc = {}
        nacc = 0
    if step % 300 == 0 and not A.bench:
        torch.save(dict(sd=model.state_dict(), cfg=getattr(model, "cfg", VC), step=step), A.out)
if not A.bench:
    torch.save(dict(sd=model.state_dict(), cfg=getattr(model, "cfg", VC), step=step), A.out)
log("done", step, "steps", time.time() - t0, "s")
