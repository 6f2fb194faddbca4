"""Part of make_decoding.py: OPERA, beam search with an over-trust penalty and rollbacks, step by step as said there."""
import copy

import numpy as np
import torch

from decoding_search import penalised, relative

JUNK = -999.0


def half(x, on=True):
    return x.half().float() if on else x


def column_scores(rows, prompt_length, o):
    """The score of each generated column from the last layer's rows (generated + candidate, keys)."""
    product = np.ones(len(rows), np.float32)
    for i, row in enumerate(rows):
        row = row[:prompt_length + i + 1]
        product[:i + 1] *= np.float32(o["scale"]) * (row / row.sum())[prompt_length:].numpy()
    return half(torch.from_numpy(product * np.float32(o["score_scale"])), o["score_fp16"])


def mode(values):
    """The most frequent value, the smallest of equals."""
    return min(set(values), key=lambda v: (-values.count(v), v))


class Hypotheses:
    """Finished texts as transformers 4.29 keeps them."""

    def __init__(self, size, length_penalty):
        self.size, self.penalty, self.kept, self.done = size, length_penalty, [], False

    def add(self, tokens, total, length, note):
        self.kept.append((total / length ** self.penalty, tokens))
        if len(self.kept) > self.size:
            ordered = sorted(self.kept, key=lambda h: h[0])
            note("opera.finished", relative(ordered[0][0], ordered[1][0]))
            self.kept.remove(ordered[0])

    def check(self, best, length, note):
        if len(self.kept) == self.size and not self.done:
            worst, reachable = min(h[0] for h in self.kept), best / length ** self.penalty
            note("opera.stop", relative(worst, reachable))
            self.done = worst >= reachable


def search(request, eos, max_new, o, d, note=lambda kind, margin: None, late_ties=False, once_rounded=False,
           quick=False):
    """dict(answers, steps).  late_ties: of equal sums the last one first, not the first; once_rounded: the logits after a
    rollback are rounded to half precision after the whole subtraction only; quick: see Row.fan."""
    b, n, fp16 = d["beams"], o["candidates"], o["logits_fp16"]
    prompt = request.prompt
    p, image = len(prompt.ids), slice(prompt.s, prompt.s + prompt.k)
    short = p - prompt.k + 1 if prompt.k else p     # its ids with one for the image
    most = n if o["max_rollbacks"] is None else o["max_rollbacks"]
    first = max(n, b + 1) if o["first_candidates"] is None else o["first_candidates"]
    beams, finished = [([], 0.0)] + [([], -1e9)] * (b - 1), Hypotheses(b, d["length_penalty"])
    locations, history, count, rejected, steps, previous, ties = [], [], {}, {}, [], None, 0
    t, last_back = 0, 0
    nothing = -torch.inf if o["plain_fallback"] else JUNK

    def among_candidates(logits, chosen, values):
        """The logits of a step in which only candidates count."""
        new = []
        for z, ids, value in zip(logits, chosen, values):
            x = torch.full_like(z, nothing)
            x[ids] = z[ids] if o["plain_fallback"] and not value.isfinite().any() else value
            new.append(x)
        return new

    def decide(kind, a, other, size=None):
        """Between equal half-precision numbers the first wins, which is no matter of precision."""
        nonlocal ties
        if fp16 and a == other:
            ties += 1
        else:
            note(kind, relative(a, other) if size is None else (a - other) / size)

    while True:
        logits = [half(request.combine(tokens)[2], fp16) for tokens, _ in beams]
        chosen, values, beam_locations, phis = [], [], [], []
        for (tokens, _), z in zip(beams, logits):
            order = torch.sort(z, descending=True, stable=True)
            k = first if t == 0 else n
            decide("opera.candidate", float(order.values[k - 1]), float(order.values[k]), float(z.abs().max()))
            ids, where, adjusted = order.indices[:k].tolist(), [], []
            if quick and any((*tokens, token) not in request.main.memory for token in ids):
                request.main.fan(tokens, ids)
            for token in ids:
                rows = request.main.after(tokens + [token])["rows"]
                scores = column_scores(rows, p, o)
                phi = float(scores.max())
                place = int((scores == phi).nonzero()[0])
                phis.append(phi)
                rest = torch.cat([scores[:place], scores[place + 1:]])
                if len(rest) and phi > 0 and phi < torch.inf:
                    note("opera.location", relative(phi, float(rest.max())) if float(rest.max()) < phi else 1.0)
                where.append(place)
                if t + 1 <= o["image_reward_len"]:
                    last = rows[-1] / rows[-1].sum()
                    adjusted.append(z[token] + o["alpha"] * last[image].sum())
                else:
                    phi = min(phi, o["phi_max"]) if o["phi_max"] else phi
                    adjusted.append(z[token] - o["alpha"] * torch.tensor(phi))
            chosen.append(ids)
            values.append(half(torch.stack(adjusted), fp16))
            beam_locations.append(mode(where))
        common = mode(beam_locations)
        locations.append(beam_locations)
        history.append(dict(beams=beams, finished=copy.deepcopy(finished), logits=logits, chosen=chosen, values=values,
                            previous=previous))
        now, back = t, rollback_to(locations, common, t, o, most, count, last_back)
        if back is None:
            new = among_candidates(logits, chosen, values)
        else:
            del history[back + 2:], locations[back + 2:]
            state, tokens_parents = history[back], history[back + 1]["previous"]
            del history[back + 1:], locations[back + 1:]
            beams, t = state["beams"], back
            finished = state["finished"] if o["share_hypotheses"] else copy.deepcopy(state["finished"])
            for place in [q for q in rejected if q == back + 1 or (o["clean_rejects"] and q > back)]:
                del rejected[place]
            rejected.setdefault(back, []).extend(tokens_parents)
            last_back = back
            if o["retry_full_vocab"]:
                new = []
                for z in state["logits"]:
                    below = z.min()
                    new.append(half(z - (below + 999), fp16) if once_rounded else
                               half(z - half(below + 999, fp16), fp16))
            else:
                new = among_candidates(state["logits"], state["chosen"], state["values"])
            for parent, token in rejected[back]:
                new[parent][token] = JUNK if o["retry_full_vocab"] else nothing
        # beam search goes on with these
        sums = []
        for z, (tokens, score) in zip(new, beams):
            log_probs = penalised(torch.log_softmax(z, -1), prompt.ids + tokens, d["repetition_penalty"])
            sums.append(log_probs + torch.tensor(score, dtype=torch.float32))
        sums, vocabulary = torch.stack(sums).reshape(-1), len(sums[0])
        if late_ties:
            value, order = torch.sort(sums.flip(0), descending=True, stable=True)
            order = len(sums) - 1 - order
        else:
            value, order = torch.sort(sums, descending=True, stable=True)
        top = [(float(value[i]), int(order[i]) // vocabulary, int(order[i]) % vocabulary) for i in range(2 * b)]
        following = []
        for rank, (score, parent, token) in enumerate(top):
            if token == eos:
                note("opera.end", relative(score, top[b][0] if rank < b else top[b - 1][0]))
                if rank < b:
                    finished.add(beams[parent][0] + [eos], score, short + t, note)
                continue
            following.append((score, parent, token))
        decide("opera.set", following[b - 1][0], following[b][0] if len(following) > b else float(value[2 * b]))
        following = following[:b]
        finished.check(top[0][0], short + t + 1, note)
        previous = [(parent, token) for _, parent, token in following]
        beams = [(beams[parent][0] + [token], score) for score, parent, token in following]
        steps.append(dict(step=now, locations=beam_locations, location=common, rollback=-1 if back is None else back,
                          tokens=[token for _, _, token in following], parents=[parent for _, parent, _ in following],
                          scores=[score for score, _, _ in following], finished=len(finished.kept), phi=max(phis)))
        t += 1
        if finished.done or t == max_new:
            break
    if not finished.done:
        for tokens, score in beams:
            finished.add(tokens, score, short + len(tokens), note)
    best = sorted(finished.kept, key=lambda h: h[0])[::-1]
    for a, other in zip(best[:d["answers"]], best[1:]):
        note("opera.order", relative(a[0], other[0]))
    return dict(answers=[dict(tokens=tokens, score=score) for score, tokens in best[:d["answers"]]], steps=steps, ties=ties)


def rollback_to(locations, common, t, o, most, count, last):
    """The step that is chosen anew, or None.  last: the one gone back to before."""
    enough = o["threshold"] + (1 if o["threshold_strict"] else 0)
    if common < o["rollback_min"] or (o["monotone"] and common + 1 < last) or \
            any(sum(row[i] == common for row in locations) < enough for i in range(len(locations[0]))):
        return None
    for place in (common + 1, common):
        if count.get(place, 0) < most:
            if place + 1 > t:
                return None
            count[place] = count.get(place, 0) + 1
            return place
    return None
