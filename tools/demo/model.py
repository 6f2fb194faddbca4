"""The demo model in PyTorch: CLIP-shaped vision tower, MLP projector, LLaMA-shaped decoder.

Names follow Hugging Face where that helps the exporter.  The decoder rotates halves (HF convention);
the exporter permutes q and k for GGUF.  All attention is plain softmax attention.
"""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
VISION = dict(width=160, layers=4, heads=5, mlp=640, image=112, patch=14)
TEXT = dict(width=192, layers=6, heads=6, mlp=512, eps=1e-5, rope_base=10000.0)


def normalise(images):
    """uint8 [B, H, W, 3] -> float32 [B, 3, H, W] with CLIP's mean and deviation."""
    x = images.permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(CLIP_MEAN).view(1, 3, 1, 1)) / torch.tensor(CLIP_STD).view(1, 3, 1, 1)


class VisionBlock(nn.Module):
    """Pre-norm transformer block with biases and quick-GELU."""

    def __init__(self, width, heads, mlp):
        super().__init__()
        self.heads = heads
        self.ln1, self.ln2 = nn.LayerNorm(width, eps=1e-5), nn.LayerNorm(width, eps=1e-5)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.fc1, self.fc2 = nn.Linear(width, mlp), nn.Linear(mlp, width)

    def forward(self, x):
        b, t, d = x.shape
        y = self.ln1(x)
        q, k, v = (f(y).view(b, t, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        a = F.scaled_dot_product_attention(q, k, v)
        x = x + self.out(a.transpose(1, 2).reshape(b, t, d))
        u = self.fc1(self.ln2(x))
        return x + self.fc2(u * torch.sigmoid(1.702 * u))


class VisionTower(nn.Module):
    """CLIP ViT up to the penultimate hidden state: every layer that is kept here is run, no post-LN."""

    def __init__(self, width, layers, heads, mlp, image, patch):
        super().__init__()
        self.patch_embedding = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width) * 0.02)
        self.position_embedding = nn.Parameter(torch.randn((image // patch) ** 2 + 1, width) * 0.02)
        self.pre_layrnorm = nn.LayerNorm(width, eps=1e-5)
        self.layers = nn.ModuleList(VisionBlock(width, heads, mlp) for _ in range(layers))

    def forward(self, pixels):
        """Hidden states [B, 1 + patches, width], CLS first."""
        x = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1) + self.position_embedding
        x = self.pre_layrnorm(x)
        for layer in self.layers:
            x = layer(x)
        return x


class RMSNorm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x):
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


def rings(h, w):
    """Concentric causal attention (arXiv 2410.15926): ring of each cell in raster order, 0 = border."""
    return torch.tensor([min(y, x, h - 1 - y, w - 1 - x) for y in range(h) for x in range(w)])


def image_positions(n_before, n_image, cca):
    """Positions of the text before an image and of its tokens, and the position of the first token after it."""
    before = torch.arange(n_before)
    if not cca:
        return torch.arange(n_before + n_image), n_before + n_image
    side = math.isqrt(n_image)
    return torch.cat([before, n_before + rings(side, side)]), n_before + (side + 1) // 2


def sees(n_before, n_image, cca):
    """bool [n, n]: which prefix token (row) attends to which (column)."""
    n = n_before + n_image
    seen = torch.ones(n, n, dtype=torch.bool).tril()
    if cca:
        side = math.isqrt(n_image)
        ring = rings(side, side)
        seen[n_before:, n_before:] = ring[None] <= ring[:, None]
    return seen


def rope_tables(positions, head_dim, base):
    """cos and sin [..., head_dim] for HF's rotate-halves convention."""
    inv = base ** (-torch.arange(0, head_dim, 2).float() / head_dim)
    angle = positions.float()[..., None] * inv
    return torch.cat([angle, angle], -1).cos(), torch.cat([angle, angle], -1).sin()


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


class TextBlock(nn.Module):
    """LLaMA block."""

    def __init__(self, width, heads, mlp, eps):
        super().__init__()
        self.heads = heads
        self.attn_norm, self.ffn_norm = RMSNorm(width, eps), RMSNorm(width, eps)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.gate, self.up = nn.Linear(width, mlp, bias=False), nn.Linear(width, mlp, bias=False)
        self.down = nn.Linear(mlp, width, bias=False)

    def forward(self, x, cos, sin, mask, past=None):
        b, t, d = x.shape
        y = self.attn_norm(x)
        q, k, v = (f(y).view(b, t, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        a = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.o(a.transpose(1, 2).reshape(b, t, d))
        y = self.ffn_norm(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y)), (k, v)


class Heads(nn.Module):
    """Training-only heads on the RMS-normalised projector output: what the decoder's first layer reads."""

    def __init__(self, width, vision_width, classes):
        super().__init__()
        self.classes = nn.Linear(width, classes + 1)
        self.place = nn.Linear(width, 9)
        self.box = nn.Linear(width, 3)
        self.count = nn.Linear(width, 4)
        self.presence = nn.Linear(vision_width, classes)

    def forward(self, hidden, projected):
        z = F.rms_norm(projected, (projected.shape[-1],))
        cls = F.layer_norm(hidden[:, 0], (hidden.shape[-1],))
        return self.classes(z), self.place(z), self.box(z), self.count(z), self.presence(cls)


class DemoModel(nn.Module):
    """Vision tower + projector (exact GELU) + decoder with an untied output matrix."""

    def __init__(self, vocab, classes, cca=False):
        super().__init__()
        t = TEXT
        self.cca = cca            # concentric causal attention: ring positions and ring mask
        self.vision = VisionTower(**VISION)
        self.mm0, self.mm2 = nn.Linear(VISION["width"], t["width"]), nn.Linear(t["width"], t["width"])
        self.heads = Heads(t["width"], VISION["width"], classes)
        self.embed = nn.Embedding(vocab, t["width"])
        self.blocks = nn.ModuleList(TextBlock(t["width"], t["heads"], t["mlp"], t["eps"]) for _ in range(t["layers"]))
        self.norm = RMSNorm(t["width"], t["eps"])
        self.output = nn.Linear(t["width"], vocab, bias=False)
        self.head_dim = t["width"] // t["heads"]
        self.reset()

    def reset(self):
        """Initial weights (called under a fixed seed)."""
        for name, p in self.named_parameters():
            if p.dim() >= 2 and "position" not in name:
                nn.init.normal_(p, std=0.5 * (p[0].numel()) ** -0.5)
            elif name.endswith("bias"):
                nn.init.zeros_(p)
        nn.init.normal_(self.embed.weight, std=0.3)
        nn.init.normal_(self.output.weight, std=0.02)
        for b in self.blocks:
            for m in (b.o, b.down):
                m.weight.data.mul_(1 / math.sqrt(2 * len(self.blocks)))

    def see(self, images):
        """uint8 images -> (hidden states, projected patches)."""
        hidden = self.vision(normalise(images))
        return hidden, self.mm2(F.gelu(self.mm0(hidden[:, 1:])))

    def decode(self, x, positions, mask, past=None):
        """Embeddings -> (normalised hidden states, new KV list)."""
        cos, sin = rope_tables(positions, self.head_dim, TEXT["rope_base"])
        if positions.dim() == 2:
            cos, sin = cos[:, None], sin[:, None]
        new = []
        for i, block in enumerate(self.blocks):
            x, kv = block(x, cos, sin, mask, None if past is None else past[i])
            new.append(kv)
        return self.norm(x), new
