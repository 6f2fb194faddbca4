"""Makes tests/golden/vision_branches.safetensors: what DAMRO and CausalMM read and make in the image encoder, computed by
transformers and torch. Read by tests/unit/test_vision_branches.c and test_counterfactual.c.

    python3 -m venv /tmp/hf && /tmp/hf/bin/pip install -r tests/golden/requirements-hf.txt
    /tmp/hf/bin/python tests/golden/make_vision_branches.py            # writes the file
    /tmp/hf/bin/python tests/golden/make_vision_branches.py --check    # computes it again and compares

Nothing is downloaded; tests/golden/hf must be there. The images are the pixels recorded there for the first two cases of
each model.

  MODEL.caseC.wide.B       (patches): block B of the image encoder, softmax over all tokens of q . k / sqrt(width), row of
                           the class token without itself; q and k as the projections' outputs are
  MODEL.caseC.cls.B        (patches): the encoder's own probabilities of that row, summed over heads
  MODEL.caseC.map.B        (tokens, heads, tokens): all of them (last block that is used only)
  MODEL.caseC.weights.M    (patches): CausalMM's weights of that map, M is "uniform" or "reversed"
  MODEL.caseC.tokens.M     (patches, width): the projector on the features times these weights
  interpolate.H.N.G        (G, G): mean over H heads of (max - map), interpolated from (N, N) by
                           torch.nn.functional.interpolate(mode="bilinear", align_corners=False); entry (i, j) of head h
                           of the map is ((h N N + i N + j) 2654435761 mod 2^32) / 2^32 in f32
"""
import argparse
import os

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from transformers import LlavaForConditionalGeneration

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "vision_branches.safetensors")


def weights(maps, grid, mode):
    """maps (heads, n, n) -> (grid * grid)"""
    if mode == "uniform":
        maps = maps.mean(dim=(1, 2), keepdim=True).expand_as(maps)
    else:
        maps = maps.amax(dim=(1, 2), keepdim=True) - maps
    small = torch.nn.functional.interpolate(maps[None], size=(grid, grid), mode="bilinear", align_corners=False)
    return small[0].mean(0).flatten()


def of_model(name, out):
    model = LlavaForConditionalGeneration.from_pretrained(os.path.join(HERE, "hf", name), dtype=torch.float32,
                                                          attn_implementation="eager").eval()
    recorded = load_file(os.path.join(HERE, "hf", name + ".safetensors"))
    tower = model.model.vision_tower
    blocks, layer = tower.vision_model.encoder.layers, model.config.vision_feature_layer
    n_used = len(blocks) + 1 + layer if layer < 0 else layer
    for case in range(2):
        seen = {}
        handles = [getattr(blocks[b].self_attn, p).register_forward_hook(
            lambda module, args, output, key=(b, p): seen.__setitem__(key, output[0]))
            for b in range(n_used) for p in ("q_proj", "k_proj")]
        result = tower(torch.from_numpy(recorded[f"case{case}.pixels"][:1]), output_hidden_states=True,
                       output_attentions=True)
        for h in handles:
            h.remove()
        features = result.hidden_states[layer][0, 1:]
        key = f"{name}.case{case}."
        for b in range(n_used):
            q, k = seen[b, "q_proj"], seen[b, "k_proj"]
            out[f"{key}wide.{b}"] = torch.softmax(q @ k.T * q.shape[-1] ** -0.5, -1)[0, 1:]
            out[f"{key}cls.{b}"] = result.attentions[b][0, :, 0, 1:].sum(0)
        maps = result.attentions[n_used - 1][0]
        out[f"{key}map.{n_used - 1}"] = maps.permute(1, 0, 2).contiguous()
        grid = int(len(features) ** 0.5)
        for mode in ("uniform", "reversed"):
            w = out[f"{key}weights.{mode}"] = weights(maps, grid, mode)
            out[f"{key}tokens.{mode}"] = model.model.multi_modal_projector(features * w[:, None])


@torch.no_grad()
def make():
    out = {}
    for name in ("llava15_mha", "llava15_tied"):
        of_model(name, out)
    for heads, n, grid in ((16, 577, 24), (3, 50, 7), (2, 5, 2)):
        entries = np.arange(heads * n * n, dtype=np.uint64) * 2654435761 % 2 ** 32
        maps = (entries / 2.0 ** 32).astype(np.float32).reshape(heads, n, n)
        out[f"interpolate.{heads}.{n}.{grid}"] = weights(torch.from_numpy(maps), grid, "reversed").reshape(grid, grid)
    return {k: v.contiguous().numpy() for k, v in out.items()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    made = make()
    if not parser.parse_args().check:
        save_file(made, OUT)
        return
    kept = load_file(OUT)
    assert kept.keys() == made.keys()
    print("largest difference", max(float(np.abs(kept[k] - made[k]).max()) for k in kept))


if __name__ == "__main__":
    main()
