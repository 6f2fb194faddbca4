"""Muon (momentum, then orthogonalised update) in float32; torch.optim.Muon works in bfloat16, which is
slow on processors without bfloat16 arithmetic."""
import torch


def orthogonalise(g, steps=5):
    """Newton-Schulz iteration towards the nearest semi-orthogonal matrix; g is [..., rows, columns]."""
    a, b, c = 3.4445, -4.7750, 2.0315
    flip = g.shape[-2] > g.shape[-1]
    x = g.mT if flip else g
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        s = x @ x.mT
        x = a * x + (b * s + c * s @ s) @ x
    return x.mT if flip else x


class Muon(torch.optim.Optimizer):
    """One parameter per group; matrices of one shape are orthogonalised together.

    The update is scaled by 0.2 sqrt(max(rows, columns)), so that rates of AdamW fit.
    """

    def __init__(self, groups, lr, momentum=0.95):
        super().__init__(groups, dict(lr=lr, momentum=momentum, weight_decay=0.0, scale=1.0))

    @torch.no_grad()
    def step(self):
        shapes = {}
        for g in self.param_groups:
            p = g["params"][0]
            m = self.state[p].setdefault("m", torch.zeros_like(p))
            m.lerp_(p.grad, 1 - g["momentum"])
            shapes.setdefault(p.shape, []).append((g, p, torch.lerp(p.grad, m, g["momentum"])))
        for shape, items in shapes.items():
            update = orthogonalise(torch.stack([u for _, _, u in items])) * 0.2 * max(shape) ** 0.5
            for (g, p, _), u in zip(items, update):
                p.mul_(1 - g["lr"] * g["weight_decay"]).add_(u, alpha=-g["lr"])
