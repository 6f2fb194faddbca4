"""Part of make_decoding.py: greedy and beam search on a function that gives logits for generated tokens."""
import torch


def greedy(request, steps, counted):
    """dict(tokens, z, out, kept, changed, held): the end token stops nothing.  kept: tokens not cut off in the first steps;
    changed: steps with another token than the main row's; held: steps in which a cut-off prevented the largest one."""
    tokens, z, out, kept, changed, held = [], [], [], [], 0, 0
    for step in range(steps):
        raw, combined, final = request.combine(tokens)
        request.margins.note("argmax", request.argmax_margin(combined, final))
        z.append(raw)
        out.append(combined)
        if step < counted:
            kept.append(int(final.isfinite().sum()))
            request.margins.note("cutoff", request.slack.abs().min().clamp_max(1))
        tokens.append(int(final.argmax()))
        changed += tokens[-1] != int(raw.argmax())
        held += tokens[-1] != int(combined.argmax())
    return dict(tokens=tokens, z=torch.stack(z), out=torch.stack(out), kept=kept, changed=changed, held=held)


def penalised(log_probs, ids, penalty):
    """transformers' repetition penalty, on log-probabilities here."""
    if penalty == 1:
        return log_probs
    log_probs, seen = log_probs.clone(), sorted(set(ids))
    value = log_probs[seen]
    log_probs[seen] = torch.where(value < 0, value * penalty, value / penalty)
    return log_probs


def relative(a, b):
    """How far apart two sums are; minus infinity is far from everything but itself."""
    if a == b:
        return 0.0
    return min(abs(float(a) - float(b)) / max(min(abs(float(a)), abs(float(b))), 1e-9), 1.0)


def beam(logits, prompt_ids, eos, max_new, d, note=lambda kind, margin: None):
    """Beam search as transformers 4.57 has it.  logits(tokens) gives the logits after these generated tokens; d: the
    decoding's options.  Returns dict(answers=[dict(tokens, score)], best first, steps=[dict(tokens, parents, scores)])."""
    b, penalty = d["beams"], d["length_penalty"]
    running = [([], 0.0)] + [([], -1e9)] * (b - 1)
    done, steps = [], []        # done: (score, tokens), best first, at most b
    for length in range(1, max_new + 1):
        rows = []
        for tokens, score in running:
            z = logits(tokens)
            rows.append(penalised(torch.log_softmax(z, -1), prompt_ids + tokens, d["repetition_penalty"])
                        + torch.tensor(score, dtype=torch.float32))
        sums, order = torch.sort(torch.stack(rows).reshape(-1), descending=True, stable=True)
        n = rows[0].shape[0]
        top = [(float(sums[i]), int(order[i]) // n, int(order[i]) % n) for i in range(2 * b)]
        last = length == max_new
        ended = [last or token == eos for _, _, token in top]
        # finished ones: of the best b only
        new = [(s / length ** penalty, running[p][0] + [t]) for (s, p, t), e in list(zip(top, ended))[:b] if e]
        old = done
        done = sorted(done + new, key=lambda h: -h[0])[:b]
        for kept in done if new else []:
            for h in old + new:
                if not any(h is x for x in done):
                    note("beam.finished", relative(kept[0], h[0]))
        ends = [i for i, (_, _, t) in enumerate(top) if t == eos]
        if not last:
            for i in ends:     # an end token among the best b or not
                other = top[b][0] if i < b else top[b - 1][0]
                note("beam.end", relative(top[i][0], other))
        else:
            note("beam.cut", relative(top[b - 1][0], top[b][0]))
        alive = [i for i, e in enumerate(ended) if not e]
        if last:
            steps.append(dict(tokens=[t for _, _, t in top[:b]], parents=[p for _, p, _ in top[:b]],
                              scores=[s for s, _, _ in top[:b]]))
            break
        following = float(sums[2 * b]) if len(alive) == b else top[alive[b]][0]
        note("beam.set", relative(top[alive[b - 1]][0], following))
        alive = alive[:b]
        running = [(running[top[i][1]][0] + [top[i][2]], top[i][0]) for i in alive]
        steps.append(dict(tokens=[top[i][2] for i in alive], parents=[top[i][1] for i in alive],
                          scores=[top[i][0] for i in alive]))
        if len(done) == b:
            if d["early_stopping"] == "early":
                break
            best_length = max_new if d["early_stopping"] == "never" and penalty > 0 else length
            best = running[0][1] / best_length ** penalty
            note("beam.stop", relative(best, done[-1][0]))
            if not best > done[-1][0]:
                break
    for a, other in zip(done[:d["answers"]], done[1:]):
        note("beam.order", relative(a[0], other[0]))
    return dict(answers=[dict(tokens=t, score=s) for s, t in done[:d["answers"]]], steps=steps)
