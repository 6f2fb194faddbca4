"""Batched greedy decoding of the demo model in PyTorch (float32)."""
import torch

import tokenizer
from model import VISION, image_positions, sees


@torch.no_grad()
def image_prefix(model, lang, images):
    """Embeddings of BOS, "USER: " and the image for uint8 images [B, 112, 112, 3]."""
    _, projected = model.see(images)
    head = model.embed(torch.tensor(lang.prefix)).expand(len(images), -1, -1)
    return torch.cat([head, projected], 1)


def causal(n):
    return torch.full((n, n), float("-inf")).triu(1)


def prompt_mask(model, lang, n):
    """Additive mask [n, n] of a prompt that begins with the image prefix."""
    n0, n_image = len(lang.prefix), (VISION["image"] // VISION["patch"]) ** 2
    mask = causal(n)
    seen = sees(n0, n_image, model.cca)
    mask[:n0 + n_image, :n0 + n_image] = torch.zeros(seen.shape).masked_fill_(~seen, float("-inf"))
    return mask


def prompt_positions(model, lang, n):
    """Positions [n] of a prompt that begins with the image prefix, whatever follows being text."""
    n0, n_image = len(lang.prefix), (VISION["image"] // VISION["patch"]) ** 2
    prefix, after = image_positions(n0, n_image, model.cca)
    return torch.cat([prefix, after + torch.arange(n - n0 - n_image)])


@torch.no_grad()
def generate(model, lang, images, question, limit=128):
    """Greedy answers to one question about every image: (texts, id lists, first-step logits)."""
    ids = torch.tensor(lang.prompt(question))
    x = torch.cat([image_prefix(model, lang, images), model.embed(ids).expand(len(images), -1, -1)], 1)
    n = x.shape[1]
    positions = prompt_positions(model, lang, n + limit)
    hidden, past = model.decode(x, positions[:n], prompt_mask(model, lang, n))
    logits = first = model.output(hidden[:, -1])
    rows, done = [[] for _ in images], torch.zeros(len(images), dtype=torch.bool)
    for step in range(limit):
        token = logits.argmax(-1)
        for i in range(len(images)):
            if not done[i] and token[i] != tokenizer.EOS:
                rows[i].append(int(token[i]))
        done |= token == tokenizer.EOS
        if done.all():
            break
        hidden, past = model.decode(model.embed(token)[:, None], positions[n + step][None], None, past)
        logits = model.output(hidden[:, -1])
    return [lang.tok.decode(r).strip() for r in rows], rows, first


@torch.no_grad()
def answer_batch(model, lang, images, which, questions):
    """First-token logits for questions[i] about images[which[i]]; each image is run once."""
    x = image_prefix(model, lang, images)
    n = x.shape[1]
    _, past = model.decode(x, prompt_positions(model, lang, n), prompt_mask(model, lang, n))
    ids = [lang.prompt(q) for q in questions]
    longest = max(map(len, ids))
    text = torch.tensor([i + [0] * (longest - len(i)) for i in ids])
    mask = torch.cat([torch.zeros(longest, n), causal(longest)], 1)
    past = [(k[which], v[which]) for k, v in past]
    hidden, _ = model.decode(model.embed(text), prompt_positions(model, lang, n + longest)[n:], mask, past)
    return model.output(hidden[torch.arange(len(ids)), torch.tensor([len(i) - 1 for i in ids])])
