"""Model of the prototype."""
import torch
import torch.nn as nn
import torch.nn.functional as F
import math


class VBlock(nn.Module):
    def __init__(s, d, h, m):
        super().__init__()
        s.h = h
        s.n1 = nn.LayerNorm(d)
        s.n2 = nn.LayerNorm(d)
        s.qkv = nn.Linear(d, 3 * d)
        s.o = nn.Linear(d, d)
        s.f1 = nn.Linear(d, m)
        s.f2 = nn.Linear(m, d)

    def forward(s, x):
        B, T, d = x.shape
        q, k, v = s.qkv(s.n1(x)).view(B, T, 3, s.h, d // s.h).permute(2, 0, 3, 1, 4)
        a = torch.softmax((q * (d // s.h) ** -0.5) @ k.transpose(-1, -2), -1) @ v
        x = x + s.o(a.transpose(1, 2).reshape(B, T, d))
        u = s.f1(s.n2(x))
        return x + s.f2(u * torch.sigmoid(1.702 * u))


class ViT(nn.Module):
    def __init__(s, d=160, L=6, h=5, m=640, nc=56):
        super().__init__()
        s.d = d
        s.patch = nn.Linear(3 * 14 * 14, d, bias=False)
        s.cls = nn.Parameter(torch.randn(d) * 0.02)
        s.pos = nn.Parameter(torch.randn(65, d) * 0.02)
        s.pre = nn.LayerNorm(d)
        s.blk = nn.ModuleList([VBlock(d, h, m) for _ in range(L)])
        s.post = nn.LayerNorm(d)
        s.pn = nn.LayerNorm(d)
        s.ph = nn.Linear(d, nc + 1)
        s.ch = nn.Linear(d, nc)  # pre-training heads only
        s.lh = nn.Linear(d, 3)
        s.kh = nn.Linear(d, 4)  # centre x,y and size; how many of this kind

    def patches(s, img):  # uint8 B,112,112,3 -> B,64,588 in conv weight order (c,py,px)
        B = img.shape[0]
        x = (img.float() / 255 - 0.5) / 0.26
        return x.view(B, 8, 14, 8, 14, 3).permute(0, 1, 3, 5, 2, 4).reshape(B, 64, 588)

    def forward(s, img, full=True):
        x = s.patch(s.patches(img))
        x = torch.cat([s.cls.expand(x.shape[0], 1, -1), x], 1) + s.pos
        x = s.pre(x)
        for b in s.blk[:-1]:
            x = b(x)
        pen = x
        if not full:
            return pen[:, 1:], None, None
        y = s.blk[-1](x)
        z = s.pn(pen[:, 1:])
        return pen[:, 1:], (s.ph(z), s.lh(z), s.kh(z)), s.ch(s.post(y[:, 0]))


class RMS(nn.Module):
    def __init__(s, d):
        super().__init__()
        s.w = nn.Parameter(torch.ones(d))

    def forward(s, x):
        return x * (torch.rsqrt(x.float().square().mean(-1, keepdim=True) + 1e-5)).to(x.dtype) * s.w.to(x.dtype)


def rope_tab(pos, hd):
    f = 1 / (10000 ** (torch.arange(0, hd, 2).float() / hd))
    a = pos.float()[..., None] * f
    a = torch.cat([a, a], -1)
    return a.cos(), a.sin()


def rope(x, c, s):
    h = x.shape[-1] // 2
    return x * c + torch.cat([-x[..., h:], x[..., :h]], -1) * s


class LBlock(nn.Module):
    def __init__(s, d, h, m):
        super().__init__()
        s.h = h
        s.n1 = RMS(d)
        s.n2 = RMS(d)
        s.qkv = nn.Linear(d, 3 * d, bias=False)
        s.o = nn.Linear(d, d, bias=False)
        s.gu = nn.Linear(d, 2 * m, bias=False)
        s.dn = nn.Linear(m, d, bias=False)

    def ffn(s, x):
        g, u = s.gu(s.n2(x)).chunk(2, -1)
        return x + s.dn(F.silu(g) * u)

    def proj(s, x, c, n):
        B, T, d = x.shape
        q, k, v = s.qkv(s.n1(x)).view(B, T, 3, s.h, d // s.h).permute(2, 0, 3, 1, 4)
        return rope(q, c, n) * (d // s.h) ** -0.5, rope(k, c, n), v

    def forward(s, x, c, n, Pn, Lc, K, Lq, mp, mc, mq):
        # [prefix Pn | caption Lc | K questions of Lq]; every text segment sees the prefix and itself only
        B, T, d = x.shape
        h = s.h
        e = d // h
        q, k, v = s.proj(x, c, n)
        sz = [Pn, Lc, K * Lq]
        (qp, qc, qq), (kp, kc, kq), (vp, vc, vq) = [z.split(sz, 2) for z in (q, k, v)]
        ap = torch.softmax(qp @ kp.transpose(-1, -2) + mp, -1) @ vp
        w = torch.softmax(qc @ torch.cat([kp, kc], 2).transpose(-1, -2) + mc, -1)
        ac = w @ torch.cat([vp, vc], 2)
        out = [ap, ac]
        if K:
            w = torch.softmax(
                qq @ torch.cat([kp, kq], 2).transpose(-1, -2) + mq, -1
            )  # mq is block diagonal over the K questions
            out.append(w @ torch.cat([vp, vq], 2))
        a = torch.cat([z.transpose(1, 2) for z in out], 1)
        return s.ffn(x + s.o(a.reshape(B, T, d)))

    def step(s, x, c, n, past, mask, ret=None):
        q, k, v = s.proj(x, c, n)
        if past is not None:
            k = torch.cat([past[0], k], 2)
            v = torch.cat([past[1], v], 2)
        w = torch.softmax(q @ k.transpose(-1, -2) + mask, -1)
        if ret is not None:
            ret.append(w)
        a = w @ v
        B, T, d = x.shape
        return s.ffn(x + s.o(a.transpose(1, 2).reshape(B, T, d))), (k, v)


class VLM(nn.Module):
    def __init__(s, V, d=192, L=6, h=6, m=512, vit=None, cca=False):
        super().__init__()
        s.cfg = dict(V=V, d=d, L=L, h=h, m=m, vit=vit or {}, cca=cca)
        s.vit = ViT(**(vit or {}))
        dv = s.vit.d
        s.p1 = nn.Linear(dv, d)
        s.p2 = nn.Linear(d, d)
        s.emb = nn.Embedding(V, d)
        s.blk = nn.ModuleList([LBlock(d, h, m) for _ in range(L)])
        s.nf = RMS(d)
        s.head = nn.Linear(d, V, bias=False)
        s.hd = d // h
        s.cca = cca
        for n, p in s.named_parameters():
            if p.dim() == 2 and "pos" not in n:
                nn.init.normal_(p, std=0.02 if "patch" not in n else 0.03)
        for b in s.blk:
            nn.init.normal_(b.o.weight, std=0.02 / math.sqrt(2 * L) * 1.5)
            nn.init.normal_(b.dn.weight, std=0.02 / math.sqrt(2 * L) * 1.5)

    def project(s, f):
        return s.p2(F.gelu(s.p1(f)))

    def prefix(s, ids0, feat):
        B = feat.shape[0]
        return torch.cat([s.emb(ids0).expand(B, -1, -1), s.project(feat)], 1)

    def pre_pos_mask(s, n0):
        """positions of the prefix and its additive mask; cca: ring index as the position, ring-causal mask"""
        n = n0 + 64
        if not s.cca:
            return torch.arange(n), torch.triu(torch.full((n, n), -1e9), 1), n
        i = torch.arange(8)
        e = torch.minimum(i, 7 - i)
        r = torch.minimum(e[:, None], e[None, :]).reshape(-1)  # 0 outside .. 3 inside
        pos = torch.cat([torch.arange(n0), n0 + r])
        m = torch.where(pos[None, :] <= pos[:, None], 0.0, -1e9)
        return pos, m, n0 + 4
