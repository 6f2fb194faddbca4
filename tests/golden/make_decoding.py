r"""Makes tests/golden/decoding: what decoding methods choose on small LLaVA models, computed on transformers.

    python3 -m venv /tmp/hf && /tmp/hf/bin/pip install -r tests/golden/requirements-hf.txt
    /tmp/hf/bin/python tests/golden/make_decoding.py            # writes tests/golden/decoding
    /tmp/hf/bin/python tests/golden/make_decoding.py --check    # computes the recorded cases again and compares
    /tmp/hf/bin/python tests/golden/make_decoding.py --missing  # computes and adds the cases that are not recorded
    /tmp/hf/bin/python tests/golden/make_decoding.py --only demo.greedy.vcd    # shows the cases so named

--only goes with --check and --missing, too.

Nothing is downloaded; models/demo-hf, tests/golden/hf and tests/golden/interventions must be there.  All is f32 (maps of
attention, DAMRO's order and DoLa's divergence f64).  There is no KV cache: every token of every row, branch, beam and
candidate is computed from the whole sequence.  decoding_rows.py has the rows (make_interventions.py's attention function
and hooks on transformers' model) and the methods of contrast, decoding_search.py greedy and beam search, decoding_opera.py
OPERA, decoding_crops.py ViCrop and CARVE.  Every case has an image and a question with which all it is to show happens and
no decision is close: those in cases.json if they still do, else the first that do.

  ends/                make_interventions.py's planted model with lm_head's row of the end token multiplied by 3: its texts
                       end at every length
  collage.png          a picture larger than what the demo model's encoder sees
  cases.json           a list of cases:
      name, kind            kind: "greedy"; "beam" and "search" (beam search with and without a method); "opera"; "crop"
      model, image          paths from the repository's root
      prompt, text          the user's question, and the main row's whole prompt with one placeholder for the image
      config                {method: {option: value}, "decode": {...}}, options not named have the defaults below
      max_new_tokens
      ids                   the main row's prompt, the placeholder repeated once per image token
      margins               for every kind of decision how far the closest one was from its boundary, relatively (below)
    greedy:
      tokens                64 tokens; the end token does not stop them
      kept                  for each of the first 16 steps how many tokens no cut-off took out
      changed, held         steps with another token than the largest of z; steps with another one than the largest of out
                            (that is, in which a cut-off decided)
      branches              weight, prompt length and first_token_only of every branch, in the order of the methods
      dola_layers           the hidden state chosen in each of the first 16 steps
    beam, search:
      answers               [{tokens, score}], best first; tokens with the end token where it came
      ended                 how many of them end with it
      n_steps               steps until the search stopped
    opera:
      answers, ended        as above
      rollbacks             pairs: the step at which the search went back, the step chosen anew
      ties                  decisions between equal half-precision numbers (the first wins, see below)
      trace                 lists with one entry per step: step (t), locations (of every beam), location (common), rollback
                            (the step chosen anew, -1: none), tokens, parents, scores (of the beams after the step, sums),
                            finished (texts kept), phi (the largest column score of any candidate, before phi_max; "inf")
    crop:
      tokens                16 tokens of the second pass; the end token does not stop them
      second_text, second_length   its prompt, and the length with all images' tokens
      box                   left, upper, right, lower in the image's pixels, the last two exclusive
      ratios                vicrop: for every ratio tried window [columns, rows], position [column, row], sharpness
      parts, kept, pixels, size    carve: regions, those kept, their pixels; width and height of the refined picture
      first_tokens, general_tokens   carve: what the two runs of the first pass said
  MODEL.safetensors    greedy: f32 (16, vocabulary), row t is what token t was chosen from: "NAME.z" the main row's logits,
                       "NAME.out" the combined ones before any cut-off
                       crop: "NAME.map" (rows, columns); vicrop "NAME.question", "NAME.general" (K); "NAME.z" (16,
                       vocabulary) of the second pass

Rows.  The main row has all methods of make_interventions.py that the configuration names.  A branch is a row with another
prompt that is fed the same generated tokens; it has none of those methods but cca and mma, which change the positions and
the mask of every row with an image.  Conversation: "USER: <image>\n{question} ASSISTANT:".

Combination.  z: logits of the main row; n_k: of branch k; out = z + sum_k w_k (z - n_k).  Then every token with
z < ln(beta_k) + max(z) for any k is -inf (beta_k = 0: none).  With first_token_only n_k is z from the second generated
token on; the cut-off stays.  Greedy takes the largest, the first of equals; beam search takes the log-softmax of this.
DoLa replaces z before, with its own cut-off: z, the maximum of z and what is already -inf are then DoLa's.

Options and defaults (w: weight of the branch):

  vcd       alpha 1 (w), beta 0.1, noise_step 500, seed 0, first_token_only false.  Branch: the noised picture
            sqrt(A) x + sqrt(1 - A) eps, x: the normalised pixels, A = prod_{i = 0..noise_step} (1 - b_i),
            b_i = (0.005 - 1e-5) sigmoid(y_i) + 1e-5, y: 1000 points from -6 to 6.  eps over (3, H, W): normal
            numbers by Marsaglia's polar method of two uniform ones, of the 53 high bits of xoshiro256**, whose state is
            splitmix64's with the first output of splitmix64(seed) as state.
  damro     alpha 2 (w), beta 0.1, tokens 10, block -1, first_token_only false.  Branch: only the image tokens with the
            largest a, in descending order of a; the text follows at once.  a = softmax over all 1 + K tokens of
            q_class . k_j / sqrt(width), q and k: projections (with bias) of the block's normed input, heads not split.
            Block -1: the last whose output the projector reads.
  causalmm  gamma 1 (w of each branch), epsilon 0.1 (cut-off), vision "off", "uniform", "reversed", vision_block -1,
            language "off", "reverse", "reverse_normalised", "uniform", language_layers "0-", first_token_only false. Vision
            branch: the features (input of the projector) of image token j times w_j: the block's probabilities (heads, 1 +
            K, 1 + K), "uniform": all replaced by their mean, "reversed": the maximum of the head minus them; bilinearly
            resized to the grid (half-pixel centres, no antialiasing), mean of the heads. Language branch: ordinary prompt;
            in these layers, for all rows and heads, the probabilities become: reverse: the row's maximum minus them, 0
            where the row may not see; reverse_normalised: that divided by its sum (unchanged where that is 0); uniform: 1 / number
            of visible keys.
  icd       alpha 1 (w), beta 0.1, prefix (text), place "system": branch's prompt is prefix + " USER: <image>\n{question}
            ASSISTANT:"; "question": "USER: <image>\n" + prefix + " {question} ASSISTANT:".
  lqcd      alpha 1 (w), beta 0.1, neutral (text).  The main row asks `neutral`, the branch the user's question.
  pai       besides make_interventions.py's: gamma 1.1 (w = gamma - 1; 1: no branch), cutoff 0.1.  Branch: the prompt without
            the image's ids, positions contiguous, nothing boosted.
  paint     likewise gamma 1.1; cut-off 0.1.
  dola      layers null (hidden states 0, 2, 4, ... below the number of layers; 0: the embedding) or layers as text, cutoff
            0.1.  Candidate k: lm_head of hidden state k of the last token without the final norm.  With p = softmax(z), q_k
            of the candidate, M = (p + q_k) / 2: the k with the largest mean over the vocabulary of
            (KL(M, p) + KL(M, q_k)) / 2, KL(a, b) = a (ln a - ln b), the first of equals, is contrasted: z becomes
            ln p - ln q_k; tokens with z < ln(cutoff) + max(z) before are -inf.

decode: strategy "greedy", "beam" or "opera"; beams 1, length_penalty 1, early_stopping "heuristic" (transformers: False),
"early" (True), "never", answers 1 (num_return_sequences), repetition_penalty 1 (on log-probabilities, over the ids of
prompt, image placeholder included, and text).  Beam search is that of transformers 4.57; cases without a method are
recorded from its own generate (with which decoding_search.py's must agree), the others from decoding_search.py.

OPERA, options and defaults: candidates 5, scale 50, alpha 1, threshold 15, image_reward_len 10, score_scale 1e-7,
score_fp16 true, logits_fp16 false, rollback_min 10, max_rollbacks null (candidates), phi_max 0 (none), first_candidates
null (the larger of candidates and beams + 1), share_hypotheses false, clean_rejects true, plain_fallback true,
threshold_strict true, monotone false, retry_full_vocab true.  P: prompt length with all image tokens; h: with one id for
the image.  Beams have tokens and a sum; at first 0, the others -1e9.  Step t (t tokens generated):

  1. z of every beam; with logits_fp16 rounded to half precision, as are candidate scores and what a rollback makes of z.
  2. Candidates: the `candidates` (t = 0: first_candidates) largest of z, the first of equals.
  3. Rows: for a beam's tokens and a candidate c as token t, row i <= t: the last layer's probabilities (after VAR) of that
     token's row, the largest of all heads, over keys 0..P+i, divided by its sum; w[i][j] at key P+j.  Column score of j <=
     t: score_scale * prod_{i = j..t} (scale * w[i][j]), f32, with score_fp16 rounded to half precision.  phi: the largest;
     the candidate's location: the smallest j that has it.
  4. Candidate score: t + 1 <= image_reward_len: z_c + alpha * (sum of row t over the image's keys), else z_c - alpha *
     min(phi, phi_max).
  5. A beam's location: the most frequent of its candidates; the common location g: of the beams; the smallest of equals.
     The beams' locations are appended to a list, in the beams' order, never permuted.  The step's state is kept: beams, a
     copy of the finished texts, z, and the tokens and parents that the step before chose.
  6. Rollback, if g >= rollback_min and in every beam's component more than `threshold` entries of the list are g (not
     threshold_strict: as many will do; monotone: and g + 1 is not before the last step gone back to): to the first of g
     + 1 and g that has been rolled back to less than max_rollbacks times (else none); none if the step after it has not
     been reached (which does not count).  Then t becomes that step r: beams and finished texts are those of its state
     (share_hypotheses: the very object, so what later finishes is there at a second rollback to r; else a copy), states
     and list end with step r; the list of rejected (beam, token) of step r + 1 is emptied (clean_rejects: of all later
     steps), that of step r grows by what had been chosen at it; z of every beam minus (999 + its smallest) (with
     logits_fp16 the sum in brackets is rounded, then the difference), then -999 for what is rejected at r.  No step 7.
     Not retry_full_vocab: instead 7 with the candidates and scores of that state, then what is rejected as if no
     candidate.
  7. Else all but candidates become -999 and candidates their scores.  plain_fallback: all but candidates -inf; in a beam
     without any finite candidate score the candidates keep their z.
  8. log-softmax, plus the beam's sum.  The 2 * beams largest of all (of equals the first: smaller beam, then smaller token)
     are gone through: an end token finishes its beam's text with the score sum / (h + t) if it is one of the first `beams`,
     others become the next beams.  Of more than `beams` finished texts the worst goes.  The search is done when there are
     as many and the worst is >= (largest sum of this step) / (h + t + 1), or after max_new_tokens; then beams become
     finished texts with sum / (h + tokens).  Answers: the best finished texts, with the end token that finished them.

ViCrop: layers "14", general "Write a general description of the image.", geometry "whole".  Map: the probabilities of the
prompt's last row at the image's tokens, mean of heads and layers, with the question over those with `general`.  With the
encoder's size S, the image's W x H, blocks of W/columns x H/rows: for r in 1, 1.2, 1.4, 1.6, 1.8, 2 a window of min(int(S r
/ block), grid) blocks each way (all of the grid: for r = 1 the whole image is the box, else r is skipped), placed where its
sum is largest (the first, columns outside, rows inside); sharpness: that sum minus the mean of its neighbours' (one step
up, down, left, right), over the window's blocks.  The sharpest r, the first of equals: centre int(position * block + block
* window / 2), half = floor(S r / 2), centre at least half, then at most size - half; box from max(0, centre - half) to
min(size, centre + half).  Second pass: images [image, box of it], "USER: <image>\n<image>\n{question} ASSISTANT:".

CARVE: layers "20-25", general as above, steps 32, weights "linear" or "first", images "both" or "refined".  Question and
`general` are answered greedily, up to `steps` tokens, the end token the last; at every step t that both have, in every
layer: C = (map of the row that token t is chosen from, mean of the heads) over (that of general + 1e-8).  Map: sum over
layers and steps of (t + 1) C, or of C at t = 0.  Bilinearly resized to the image's pixels (half-pixel centres); those >=
its 80th percentile (numpy's) form 4-connected regions; the max(3, int(0.2 * regions)) with the largest sums stay, all else
becomes black; cut to their bounding box; resized with PIL's LANCZOS by max(W / width, H / height) (sizes in pixels rounded;
here also cut off).  Second pass: [image, refined] with two placeholders, or the refined one alone with one.

Margins.  argmax: of the chosen token to any other one, over the largest logit: the difference in out, for a token cut off
the larger of this and of its distance to the cut-off; and the chosen one's distance to the cut-off.  At least 1e-3, as all
of make_interventions.py and damro.order, dola.layer, vicrop.position, vicrop.sharpness, carve.component, carve.size; cutoff
(the token closest to a cut-off in the first 16 steps, on which `kept` depends) and carve.threshold (the pixel closest to
the percentile) at least 1e-5.  beam.* and opera.*: relative difference of two sums that decides about a beam's life, an end
token's rank, a finished text, the end of the search or the answers' order, at least 1e-4; opera.candidate: the last
candidate's z to the next, over the largest, at least 5e-5; opera.location: the two largest column scores, unless equal, at
least 1e-3. Besides, beam searches and OPERA choose the same five times with noise of 2e-5 of the largest value on all
logits and rows; OPERA with logits_fp16 also with the sum in brackets (6) not rounded.  With logits_fp16 equal numbers are
frequent: there "the first of equals" decides (`ties`), everywhere else the last would do as well.
"""
import argparse
import json
import os
import shutil
import sys
import tempfile

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file
from transformers import LlavaForConditionalGeneration

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.normpath(os.path.join(HERE, "..", ".."))
sys.path.insert(0, HERE)
from make_interventions import D1, D2, MODELS as HF_MODELS, QUESTIONS, SCENE, SQUARE, Margins, Oracle    # noqa: E402
from decoding_rows import OPERA, Decoder, Plain, Request, Row, full    # noqa: E402
from decoding_search import beam, greedy    # noqa: E402
import decoding_crops    # noqa: E402
import decoding_opera    # noqa: E402

STEPS, LOGITS = 64, 16
CLOSE, CLOSE_SUM, CLOSE_BOUND, SHAKES = 1e-3, 1e-4, 1e-5, 5
CAPTION = "Please help me describe the image in detail."
LEADING = ["Is there a dog in the image?", "Is there a car in the image?", "Is there a person in the image?"]
IMAGE_FILES = [SQUARE] + [f"tests/golden/hf/images/{n}.png" for n in ("wide", "tall", "large")]
INPUTS = dict(demo=[(SCENE % i, CAPTION) for i in range(60)],
              **{m: [(image, q) for image in IMAGE_FILES for q in QUESTIONS] for m in ("mha", "gqa", "planted", "ends")})
MODELS = {**HF_MODELS, "ends": "tests/golden/decoding/ends"}


# ---- a model that ends often -----------------------------------------------------------------------------------------

END_GAIN = 3.0


def plant(folder):
    """make_interventions.py's planted model with a larger row of the end token in lm_head."""
    source = os.path.join(ROOT, MODELS["planted"])
    os.makedirs(folder, exist_ok=True)
    for name in os.listdir(source):
        if not name.endswith(".safetensors"):
            shutil.copyfile(os.path.join(source, name), os.path.join(folder, name))
    tensors = load_file(os.path.join(source, "model.safetensors"))
    tensors["lm_head.weight"][2] *= np.float16(END_GAIN)
    save_file(tensors, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})


# ---- the cases ------------------------------------------------------------------------------------------------------

VAR = dict(planted=dict(tau=4.0, sink_dims=[D1, D2]), demo=dict(tau=4.5, sink_dims=[1, 181]))
EVERY = dict(layers="0-")


def contrasts(model):
    """name -> configuration: every method of contrast once."""
    boost = EVERY if model in ("mha", "gqa") else {}
    return {"vcd": dict(vcd={}), "damro": dict(damro={}),
            "causalmm": dict(causalmm=dict(vision="uniform", language="off")),
            "causalmm.language": dict(causalmm=dict(vision="off", language="reverse")),
            "icd": dict(icd={}), "lqcd": dict(lqcd=dict(neutral=CAPTION if model == "demo" else "What does it show?")),
            "pai": dict(pai=dict(boost, gamma=1.1)), "paint": dict(paint=dict(boost, gamma=1.1)),
            "dola": dict(dola={})}


VARIANTS = {
    "vcd.first": dict(vcd=dict(first_token_only=True)), "vcd.no_cutoff": dict(vcd=dict(beta=0.0)),
    "vcd.options": dict(vcd=dict(alpha=0.5, beta=0.3, noise_step=900, seed=12345)),
    "damro.first": dict(damro=dict(first_token_only=True)),
    "damro.options": dict(damro=dict(alpha=1.0, beta=0.02, tokens=4, block=0)),
    "causalmm.reversed": dict(causalmm=dict(vision="reversed", language="off")),
    "causalmm.block": dict(causalmm=dict(vision="reversed", vision_block=0, language="off", gamma=2.0, epsilon=0.5)),
    "causalmm.normalised": dict(causalmm=dict(vision="off", language="reverse_normalised")),
    "causalmm.language_uniform": dict(causalmm=dict(vision="off", language="uniform")),
    "causalmm.layers": dict(causalmm=dict(vision="off", language="reverse", language_layers="1,3-")),
    "causalmm.both": dict(causalmm=dict(vision="uniform", language="uniform")),
    "causalmm.first": dict(causalmm=dict(vision="uniform", language="reverse", first_token_only=True)),
    "icd.question": dict(icd=dict(place="question")),
    "icd.options": dict(icd=dict(alpha=0.5, beta=0.2, prefix="It is a small dog.")),
    "lqcd.options": dict(lqcd=dict(alpha=2.0, beta=0.05, neutral="What is on the left?")),
    "pai.options": dict(pai=dict(alpha=1.0, gamma=1.5, cutoff=0.2)), "pai.no_contrast": dict(pai=dict(gamma=1.0)),
    "pai.first": dict(pai=dict(gamma=1.3, boost_first_token=False)),
    "paint.options": dict(paint=dict(gamma=2.0)),
    "dola.layers": dict(dola=dict(layers=[1, 2, 3])), "dola.cutoff": dict(dola=dict(cutoff=0.5))}


def together(model):
    var = VAR[model]
    return {"vcd+var": dict(vcd={}, var=var), "vcd+vhr": dict(vcd={}, vhr={}),
            "damro+pai": dict(damro={}, pai=dict(gamma=1.1)),
            "dola+vcd": dict(dola={}, vcd={}), "causalmm.both": dict(causalmm=dict(vision="uniform", language="reverse")),
            "cca+icd": dict(cca={}, icd={})}


def greedy_cases():
    for model in ("mha", "gqa", "demo"):
        for name, config in contrasts(model).items():
            yield model, f"greedy.{name}", config, STEPS
    for name, config in VARIANTS.items():
        yield "planted", f"greedy.{name}", config, STEPS
    for model in ("planted", "demo"):
        for name, config in together(model).items():
            if name not in VARIANTS or model == "demo":
                yield model, f"greedy.{name}", config, STEPS


def searching(beams, strategy="beam", **more):
    return dict(decode=dict(strategy=strategy, beams=beams, **more))


def contrast_beam_cases():
    for i, name in enumerate(contrasts("mha")):
        for model in (("gqa", "mha", "ends")[i % 3], "demo"):
            if model == "demo" and name == "paint":     # with vhr instead
                name, config = "vcd+vhr", dict(vcd=dict(beta=0.0), vhr={})
            else:
                config = contrasts(model)[name]
            if model == "demo" and "+" not in name:     # its first token is nearly certain: no cut-off, for others
                method = next(iter(config))
                cutoff = dict(causalmm="epsilon", dola="cutoff", pai="cutoff").get(method, "beta")
                config = {method: {**config[method], cutoff: 0.0}}
            yield model, f"beam.{name}", {**config, **searching(2 + i % 2, answers=2)}, 24


def beam_cases():
    """Without any method: by transformers."""
    tiny = [(2, 1, "heuristic", 2, 1.0, 20), (3, 0, "heuristic", 3, 1.0, 30), (3, 2, "never", 3, 1.0, 24),
            (5, -1, "heuristic", 5, 1.0, 20), (5, 1, "early", 4, 1.0, 30), (3, 1, "never", 1, 1.2, 24),
            (2, 0, "early", 1, 1.2, 16), (5, 2, "heuristic", 5, 1.2, 9)]
    demo = [(2, 1, "heuristic", 2, 1.0, 60), (3, 1, "early", 3, 1.0, 60), (5, 1, "never", 5, 1.0, 60),
            (5, 0, "heuristic", 5, 1.0, 60), (3, 2, "heuristic", 3, 1.0, 60), (5, -1, "heuristic", 5, 1.0, 60),
            (3, 2, "never", 2, 1.0, 48), (3, 0, "never", 3, 1.0, 60), (2, -1, "early", 2, 1.0, 60),
            (5, 1, "heuristic", 4, 1.0, 24), (5, 1, "heuristic", 5, 1.2, 60), (3, 0, "early", 3, 1.2, 60)]
    for model, listed in dict(ends=tiny, mha=tiny[:5], gqa=tiny[5:], demo=demo).items():
        for b, penalty, early, answers, repetition, length in listed:
            name = f"search.{b}_{penalty}_{early}_{length}" + ("_repetition" if repetition != 1 else "")
            yield model, name, searching(b, length_penalty=float(penalty), early_stopping=early, answers=answers,
                                         repetition_penalty=repetition), length


CODE = dict(candidates=4, scale=100.0, alpha=1.0, threshold=3, image_reward_len=10, score_scale=1e-7, score_fp16=True,
            logits_fp16=False, rollback_min=2, max_rollbacks=None, phi_max=0.0, share_hypotheses=True, clean_rejects=False,
            plain_fallback=False)


def opera_cases():
    """(model, name, configuration, steps, what must happen)."""
    def code(model, name, beams, steps, wants, **more):
        o = {**CODE, **more}
        config = dict(opera=dict(first_candidates=o["candidates"], **o))
        return model, f"opera.code.{name}", {**config, **searching(beams, "opera", answers=beams)}, steps, wants

    def better(model, name, beams, steps, wants, others=None, **more):
        o = {**CODE, "phi_max": 100.0, "first_candidates": None, "share_hypotheses": False, "clean_rejects": True,
             "plain_fallback": True, **more}
        config = {**(others or {}), "opera": o}
        return model, f"opera.{name}", {**config, **searching(beams, "opera", answers=beams)}, steps, wants

    back, often = dict(rollbacks=1), dict(rollbacks=3)
    return [
        code("planted", "rollbacks", 3, 40, often), code("planted", "late", 3, 50, back, rollback_min=10),
        code("planted", "half", 2, 30, back, candidates=3, logits_fp16=True),
        code("planted", "shift", 2, 40, dict(shifted=True), max_rollbacks=1),
        code("planted", "strengths", 3, 40, dict(alpha=2.0), alpha=0.5, image_reward_len=4, scale=100.0, score_scale=1e-5,
             threshold=4),
        code("gqa", "rollbacks", 2, 40, often, candidates=3), code("gqa", "wide", 5, 30, back, candidates=5),
        code("gqa", "half", 2, 30, back, candidates=3, logits_fp16=True),
        code("mha", "rollbacks", 4, 40, often, candidates=5, scale=60.0),
        code("mha", "half", 2, 30, back, logits_fp16=True, scale=60.0),
        code("mha", "none", 3, 40, dict(rollbacks=0), scale=50.0, threshold=15),
        code("ends", "share", 3, 40, dict(share_hypotheses=False), candidates=5),
        code("planted", "rejects", 2, 16, dict(clean_rejects=True), candidates=3, scale=150.0, threshold=2, rollback_min=1,
             max_rollbacks=5),
        code("ends", "ended", 2, 40, dict(ended=2, rollbacks=1)),
        code("ends", "half", 2, 30, dict(ended=1, rollbacks=1), candidates=3, logits_fp16=True),
        code("demo", "default", 5, 60, dict(ended=1), candidates=5, scale=50.0, threshold=15, rollback_min=10,
             logits_fp16=True),
        code("demo", "rollbacks", 3, 60, back, candidates=4), code("demo", "late", 3, 60, back, rollback_min=10),
        better("planted", "rollbacks", 3, 40, often),
        better("planted", "phi_max", 2, 24, dict(phi_max=0.0), scale=200.0, score_scale=1e-3),
        better("planted", "cap", 2, 30, dict(phi_max=0.0), phi_max=0.5, scale=200.0, score_scale=1e-5),
        better("planted", "score_f32", 3, 40, dict(score_fp16=True, rollbacks=1), score_fp16=False),
        better("planted", "fallback", 2, 40, dict(plain_fallback=False), phi_max=0.0, scale=400.0, score_scale=1e-3,
               threshold=60),
        better("mha", "one", 2, 40, back, candidates=1, scale=60.0), better("planted", "two", 2, 40, back, candidates=2),
        better("planted", "first", 3, 40, dict(first_candidates=4), first_candidates=9, alpha=20.0),
        better("planted", "score_scale", 3, 40, dict(score_scale=1e-7), score_scale=1e-4),
        better("mha", "max_rollbacks", 2, 40, dict(max_rollbacks=None), max_rollbacks=1, scale=60.0),
        better("gqa", "wide", 5, 30, back, candidates=5), better("mha", "rollbacks", 2, 50, often, scale=60.0),
        better("mha", "not_strict", 2, 24, dict(threshold_strict=True), threshold_strict=False, scale=60.0),
        better("mha", "monotone", 2, 30, dict(monotone=False), monotone=True, threshold=2, rollback_min=1, scale=60.0),
        better("gqa", "retry", 2, 30, dict(retry_full_vocab=True), retry_full_vocab=False, candidates=5),
        better("mha", "paper", 2, 24, back, image_reward_len=0, score_scale=1.0, score_fp16=False, phi_max=0.0,
               threshold_strict=False, rollback_min=0, monotone=True, retry_full_vocab=False),
        better("ends", "copies", 3, 40, dict(share_hypotheses=True), candidates=5),
        better("ends", "ended", 3, 40, dict(ended=2, rollbacks=1)),
        better("demo", "rollbacks", 3, 60, back),
        better("demo", "default", 5, 60, {}, candidates=5, scale=50.0, threshold=15),
        better("planted", "var", 2, 16, back, dict(var=dict(VAR["planted"], exclude_last_layer=False)), candidates=2,
               threshold=1, rollback_min=1),
        better("planted", "cca", 2, 24, back, dict(cca={}), candidates=3, threshold=2),
        better("planted", "vhr", 3, 40, back, dict(vhr={})), better("demo", "vhr", 2, 50, back, dict(vhr={}))]


COLLAGE = "tests/golden/decoding/collage.png"


def collage(path):
    """A picture larger than what the demo model's encoder sees: four scenes, the lower two cut off."""
    out = Image.new("RGB", (224, 170))
    for i, scene in enumerate((0, 7, 11, 23)):
        out.paste(Image.open(os.path.join(ROOT, SCENE % scene)), (i % 2 * 112, i // 2 * 112))
    out.save(path, optimize=True)


WHOLE = dict(geometry="whole")


def crop_cases():
    """(model, name, configuration, steps, images to try)."""
    square, wide, tall, large = IMAGE_FILES
    return [
        ("mha", "crop.vicrop", dict(vicrop=dict(WHOLE, layers="1")), LOGITS, [large]),
        ("mha", "crop.vicrop.wide", dict(vicrop=dict(WHOLE, layers="0")), LOGITS, [wide]),
        ("gqa", "crop.vicrop", dict(vicrop=dict(WHOLE, layers="1", general="What is in the image?")), LOGITS, [large]),
        ("planted", "crop.vicrop", dict(vicrop=dict(WHOLE, layers="2-4")), LOGITS, [large]),
        ("planted", "crop.vicrop.tall", dict(vicrop=dict(WHOLE, layers="4")), LOGITS, [tall]),
        ("planted", "crop.vicrop.whole", dict(vicrop=dict(WHOLE, layers="3")), LOGITS, [square]),
        ("demo", "crop.vicrop", dict(vicrop=dict(WHOLE, layers="3")), LOGITS, [COLLAGE]),
        ("mha", "crop.carve", dict(carve=dict(WHOLE, layers="0-1", steps=8)), LOGITS, [large, square]),
        ("gqa", "crop.carve", dict(carve=dict(WHOLE, layers="1", steps=6, images="refined")), LOGITS, [wide, square]),
        ("planted", "crop.carve", dict(carve=dict(WHOLE, layers="2-4", steps=5)), LOGITS, [square, tall, wide]),
        ("planted", "crop.carve.first", dict(carve=dict(WHOLE, layers="3-4", steps=5, weights="first")), LOGITS,
         [tall, wide, large]),
        ("ends", "crop.carve", dict(carve=dict(WHOLE, layers="1-4", steps=20, images="refined")), LOGITS,
         [square, tall, wide]),
        ("demo", "crop.carve", dict(carve=dict(WHOLE, layers="2-4", steps=20)), LOGITS, [COLLAGE])]


# ---- one case -------------------------------------------------------------------------------------------------------

class Reference:
    """The model as transformers runs it."""

    def __init__(self, folder):
        self.model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32,
                                                                   attn_implementation="eager").eval()

    @torch.no_grad()
    def search(self, prompt, pixels, d, max_new):
        ids = torch.tensor([prompt.ids])
        out = self.model.generate(
            input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids), do_sample=False, num_beams=d["beams"],
            length_penalty=d["length_penalty"],
            early_stopping=dict(heuristic=False, early=True, never="never")[d["early_stopping"]],
            num_return_sequences=d["answers"], repetition_penalty=d["repetition_penalty"], max_new_tokens=max_new,
            pad_token_id=0, return_dict_in_generate=True, output_scores=True)
        answers = []
        for tokens, score, parents in zip(out.sequences, out.sequences_scores, out.beam_indices):
            n = int((parents >= 0).sum())
            answers.append(dict(tokens=tokens[ids.shape[1]:ids.shape[1] + n].tolist(), score=float(score)))
        return answers


class Bench:
    """A model with what was computed on it already."""

    def __init__(self, model, folder):
        self.folder = os.path.join(ROOT, MODELS[model].replace("tests/golden/decoding", folder))
        self.oracle, self.reference, self.requests = Decoder(self.folder), Reference(self.folder), {}

    def request(self, image, question, config):
        methods, decode = full(config)
        key = json.dumps([image, question, methods])
        if key not in self.requests:
            margins = Margins()
            self.requests[key] = Request(self.oracle, image, question, methods, margins)
        return self.requests[key], decode

    def forget(self):
        self.requests = {}


def run_greedy(bench, image, question, config, steps, wants):
    """The case's results or None, and why not."""
    request, _ = bench.request(image, question, config)
    out = greedy(request, steps, LOGITS)
    margins = request.margins
    worst = min((v for k, v in margins.items() if k != "cutoff"))
    if worst < CLOSE or margins.get("cutoff", 1) < CLOSE_BOUND or bench.oracle.config.image_token_index in out["tokens"]:
        return None, (min(margins, key=margins.get), worst)
    z, o = out.pop("z"), out.pop("out")
    if request.branches or "dola" in config:
        differs = float((z - o).abs().max())
        if differs < 0.01 or (out["changed"] == 0 and config != VARIANTS.get("pai.no_contrast")):
            return None, ("differs", differs)
    extra = dict(tokens=out["tokens"], kept=out["kept"], changed=out["changed"], held=out["held"],
                 branches=[dict(weight=w, length=len(row.prompt.ids), first_token_only=once)
                           for w, _, once, row in request.branches])
    if request.layers_chosen:
        extra["dola_layers"] = [request.layers_chosen[i] for i in range(LOGITS)]
    return dict(extra, margins=margins, numbers={"z": z[:LOGITS].numpy(), "out": o[:LOGITS].numpy()}), None


def told(out):
    """What a search chose."""
    return [[s.get(k) for k in ("step", "locations", "rollback", "tokens", "parents")] for s in out["steps"]] + \
        [[a["tokens"] for a in out["answers"]]]


def run_beam(bench, image, question, config, steps, wants):
    request, decode = bench.request(image, question, config)
    oracle, margins = bench.oracle, Margins()
    rows = [request.main] + [row for *_, row in request.branches]

    def search(note):
        return beam(lambda tokens: request.combine(tokens)[2], request.prompt.ids, oracle.eos, steps, decode, note)

    out = search(margins.note)
    worst = min(margins, key=margins.get)
    if margins[worst] < CLOSE_SUM:
        return None, (worst, margins[worst])
    answers = out["answers"]
    if any(min(s["scores"]) < -1e6 for s in out["steps"]) or \
            any(oracle.config.image_token_index in a["tokens"] for a in answers):
        return None, ("score", answers[-1]["score"])
    for kind, margin in request.margins.items():
        if kind not in ("argmax", "cutoff") and margin < CLOSE:
            return None, (kind, margin)
        margins.note(kind, margin)
    if not any(m != "decode" for m in config):
        theirs = bench.reference.search(request.prompt, oracle.see(image)["pixels"], decode, steps)
        assert [a["tokens"] for a in theirs] == [a["tokens"] for a in answers], (theirs, answers)
        assert all(abs(a["score"] - b["score"]) <= 1e-4 * abs(a["score"]) for a, b in zip(theirs, answers))
        answers = theirs
    for shake in range(SHAKES):
        for row in rows:
            row.shake = shake
        again = search(lambda kind, margin: None)
        for row in rows:
            row.shake = None
        if told(again) != told(out):
            return None, ("shaken", shake)
    ended = sum(a["tokens"][-1] == oracle.eos for a in answers)
    return dict(answers=answers, ended=ended, n_steps=len(out["steps"]), margins=margins, numbers={}), None


def run_opera(bench, image, question, config, steps, wants, quick=False):
    request, decode = bench.request(image, question, config)
    oracle, margins = bench.oracle, Margins()
    rows = [request.main] + [row for *_, row in request.branches]
    options = {**OPERA, **config["opera"]}

    def search(note=lambda kind, margin: None, o=options, **more):
        return decoding_opera.search(request, oracle.eos, steps, o, decode, note, quick=quick, **more)

    out = search(margins.note)
    back = [s for s in out["steps"] if s["rollback"] >= 0]
    ended = sum(a["tokens"][-1] == oracle.eos for a in out["answers"])
    for what, value in wants.items():
        if what == "rollbacks":
            met = len(back) >= value if value else not back
        elif what == "shifted":
            met = any(s["rollback"] == s["location"] for s in back)
        elif what == "ended":
            met = ended >= value
        else:
            met = told(search(o={**options, what: value})) != told(out)
        if not met:
            return None, (what, 0)
    least = {"opera.candidate": 5e-5, "opera.location": CLOSE}
    for kind, margin in margins.items():
        if margin < least.get(kind, CLOSE_SUM):
            return None, (kind, margin)
    for kind, margin in request.margins.items():
        if margin < CLOSE and kind != "cutoff":
            return None, (kind, margin)
        margins.note(kind, margin)
    if oracle.config.image_token_index in {x for s in out["steps"] for x in s["tokens"]} or \
            not all(x > -1e6 for s in out["steps"] for x in s["scores"]):
        return None, ("score", 0)
    if not options["logits_fp16"] and told(search(late_ties=True)) != told(out):
        return None, ("ties", out["ties"])
    if options["logits_fp16"] and told(search(once_rounded=True)) != told(out):
        return None, ("rounded", 0)
    for shake in range(SHAKES):
        for row in rows:
            row.shake = shake
        again = told(search())
        for row in rows:
            row.shake = None
        if again != told(out):
            return None, ("shaken", shake)
    trace = {k: [s[k] for s in out["steps"]] for k in out["steps"][0]}
    trace["phi"] = [float(f"{x:.4g}") if x < np.inf else "inf" for x in trace["phi"]]
    trace["scores"] = [[float(f"{x:.7g}") for x in s] for s in trace["scores"]]
    return dict(answers=out["answers"], ended=ended, ties=out["ties"], rollbacks=[[s["step"], s["rollback"]] for s in back],
                trace=trace, margins=margins, numbers={}), None


def run_crop(bench, image, question, config, steps, wants):
    oracle = bench.oracle
    out = decoding_crops.run(oracle, image, question, config, steps)
    margins, found = out["margins"], out["found"]
    for kind, margin in margins.items():
        if margin < {"carve.threshold": 1e-5}.get(kind, CLOSE):
            return None, (kind, margin)
    if oracle.config.image_token_index in out["tokens"]:
        return None, ("image token", 0)
    whole = found["box"] == [0, 0, *Image.open(os.path.join(ROOT, image)).size]
    if whole != ("vicrop" in config and not found["ratios"]) or \
            ("carve" in config and found["parts"] <= 3 and oracle.side > 5):
        return None, ("box", 0)
    return dict(tokens=out["tokens"], second_text=out["prompt"].text, second_length=len(out["prompt"].ids), **found,
                margins=margins, numbers=out["numbers"]), None


RUN = dict(greedy=run_greedy, beam=run_beam, search=run_beam, opera=run_opera, crop=run_crop)


def listed_cases():
    """(model, name, configuration, steps, wants)."""
    plain = list(greedy_cases()) + list(contrast_beam_cases()) + list(beam_cases())
    return [(*case, None) for case in plain] + opera_cases() + crop_cases()


def inputs_for(model, short, config, index, wants):
    """Images and questions a case may use, in the order in which they are tried."""
    inputs, kind = INPUTS[model], short.split(".")[0]
    if kind == "crop":
        return [(image, q) for q in ([CAPTION] + LEADING if model == "demo" else []) + QUESTIONS for image in wants]
    if model == "demo" and "lqcd" in config:
        inputs = [(image, LEADING[i % len(LEADING)]) for i, (image, _) in enumerate(inputs)]
    start = index % 6 if model == "demo" else index * 7 % len(inputs) if kind in ("search", "opera") else 0
    return inputs[start:] + inputs[:start]


def write(folder, cases, numbers):
    os.makedirs(folder, exist_ok=True)
    for model, tensors in numbers.items():
        save_file(tensors, os.path.join(folder, model + ".safetensors"))
    lines = ",\n".join(json.dumps(c) for c in cases)
    with open(os.path.join(folder, "cases.json"), "w", encoding="utf-8") as f:
        f.write(f"[\n{lines}\n]\n")


def read_cases(folder):
    with open(os.path.join(folder, "cases.json"), encoding="utf-8") as f:
        return json.load(f)


def read_numbers(folder):
    return {name.removesuffix(".safetensors"): load_file(os.path.join(folder, name))
            for name in sorted(os.listdir(folder)) if name.endswith(".safetensors")}


def ordered_cases():
    return sorted(listed_cases(), key=lambda c: list(MODELS).index(c[0]))


def ordered_names():
    return [f"{model}.{short}" for model, short, *_ in ordered_cases()]


def make(folder, only="", recorded=None, strict=False, add=False):
    """(cases, numbers) of the cases whose names begin with `only`.  recorded: {name: (image, question)}, inputs to try
    first; strict: and no other; add: adds those that are not in the folder yet, each as soon as it is there."""
    known = {c["name"]: c for c in read_cases(folder)} if add else {}
    numbers, bench, at, index = read_numbers(folder) if add else {}, None, None, {}
    for model, short, config, steps, wants in ordered_cases():
        name, kind = f"{model}.{short}", short.split(".")[0]
        index[model] = index.get(model, -1) + 1
        if not name.startswith(only) or name in known:
            continue
        if at != model:
            bench, at = Bench(model, folder), model
        inputs, why, fallback = inputs_for(model, short, config, index[model], wants), [], None
        before = recorded[name] if recorded and name in recorded else None
        if before:
            inputs = [before] + ([] if strict else [i for i in inputs if i != before])
        for image, question in inputs:
            found, reason = None, None
            if kind == "opera" and (image, question) != before:
                found, reason = run_opera(bench, image, question, config, steps, wants, quick=True)
                bench.forget()
            if not reason:
                found, reason = RUN[kind](bench, image, question, config, steps, wants)
            if found and kind == "search" and model == "ends" and not found["ended"] and len(why) < 40 and not before:
                fallback = fallback or (found, image, question)
                found, reason = None, ("no end", 0)
            if found:
                break
            why.append((question, image, *reason))
            bench.forget()
        else:
            if not fallback:
                message = "\n    ".join([f"{name}: no input will do", *map(str, why)])
                if not only and not add:
                    sys.exit(message)
                print(message, flush=True)
                continue
            found, image, question = fallback
        prompt = bench.request(image, question, {} if kind == "crop" else config)[0].prompt
        for what, x in found.pop("numbers").items():
            numbers.setdefault(model, {})[f"{name}.{what}"] = x
        margins = {k: float(f"{m:.3g}") for k, m in found.pop("margins").items()}
        config = {**config, "decode": config.get("decode", dict(strategy="greedy"))}
        known[name] = dict(name=name, kind=kind, model=MODELS[model], image=image, prompt=question, text=prompt.text,
                           config=config, max_new_tokens=steps, ids=prompt.ids, **found, margins=margins)
        show = {k: v for k, v in found.items() if k in ("changed", "held", "ended", "n_steps", "kept")}
        if "rollbacks" in found:
            show["rollbacks"] = found["rollbacks"]
        print(f"{name:44} input {len(why):2} {show} {margins}", flush=True)
        if len(bench.requests) > 6:
            bench.forget()
        if add:
            write(folder, [known[n] for n in ordered_names() if n in known], numbers)
    return [known[n] for n in ordered_names() if n in known], numbers


def verify():
    """What does not need records: a branch like the main row changes nothing, make_interventions.py's methods do here what
    they do there, and a fan's rows are those of its candidates one by one."""
    bench, there = Bench("planted", ""), Oracle(os.path.join(ROOT, MODELS["planted"]))
    question = QUESTIONS[0]
    for method in (dict(lqcd=dict(neutral=question)), dict(icd=dict(place="question", prefix="", alpha=3.0))):
        plain = greedy(bench.request(SQUARE, question, {})[0], LOGITS, 0)
        request = bench.request(SQUARE, question, method)[0]
        if "icd" in method:     # its prompt has a space more
            *how, row = request.branches[0]
            request.branches = [(*how, Row(bench.oracle, request.prompt, Plain(bench.oracle, request.prompt), {}))]
        same = greedy(request, LOGITS, 0)
        assert same["tokens"] == plain["tokens"] and float((same["out"] - plain["z"]).abs().max()) == 0
    for config in (dict(var=VAR["planted"]), dict(vhr={}), dict(cca={}, act={}), dict(mma={}, hgai={}), dict(head_scale=dict(
            heads=[[0, 1], [3, 2]]), vista=dict(sla_layers="1-3")), dict(pai=dict(gamma=1.0)), dict(paint=dict(gamma=1.0))):
        old = {m: {k: v for k, v in o.items() if k != "gamma"} for m, o in config.items()}
        z, tokens, _ = there.generate(SQUARE, question, old)
        out = greedy(bench.request(SQUARE, question, config)[0], LOGITS, 0)
        assert out["tokens"] == tokens and float((out["z"] - z).abs().max()) < 1e-4, config
    one, other = (Bench("planted", "").request(SQUARE, question, dict(cca={}, var=VAR["planted"]))[0].main for _ in range(2))
    one.fan([7, 50], [60, 61, 62])
    for token in (60, 61, 62):
        for what in ("logits", "rows"):
            assert float((one.after([7, 50, token])[what] - other.after([7, 50, token])[what]).abs().max()) < 1e-4


def inputs_of(cases):
    return {c["name"]: (c["image"], c["prompt"]) for c in cases}


def check(root, only):
    """Makes everything whose name begins with `only` again from the recorded inputs and compares."""
    recorded = read_cases(root)
    names = [c["name"] for c in recorded]
    assert names == ordered_names(), set(names) ^ set(ordered_names())
    with tempfile.TemporaryDirectory() as again:
        plant(os.path.join(again, "ends"))
        cases, numbers = make(again, only, inputs_of(recorded), strict=True)
    expected = [c for c in recorded if c["name"].startswith(only)]
    assert [c["name"] for c in cases] == [c["name"] for c in expected]
    for x, y in zip(cases, expected):
        assert same(json.loads(json.dumps(x)), y), (x["name"], x, y)
    for model, y in read_numbers(root).items():
        x = numbers.get(model, {})
        assert x.keys() == {k for k in y if k.startswith(only)}, model
        assert all(float(np.abs(x[k] - y[k]).max()) < 1e-3 for k in x), model
    print(len(cases), "cases, the same")


def same(a, b):
    """Numbers but for rounding, margins but for more."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(k == "margins" or same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) or isinstance(b, float):
        return abs(a - b) <= 1e-4 * max(abs(a), abs(b), 1e-3)
    return a == b


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--check", action="store_true")
    ap.add_argument("--missing", action="store_true")
    ap.add_argument("--only", default="", metavar="NAME", help="only the cases whose names begin so")
    args = ap.parse_args()
    torch.set_num_threads(1)
    root = os.path.join(HERE, "decoding")
    verify()
    if args.check:
        return check(root, args.only)
    recorded = {}
    if os.path.exists(os.path.join(root, "cases.json")):
        recorded = inputs_of(read_cases(root))
    if not args.only and not args.missing:
        shutil.rmtree(root, ignore_errors=True)
    plant(os.path.join(root, "ends"))
    collage(os.path.join(root, "collage.png"))
    cases, numbers = make(root, args.only, recorded, add=args.missing)
    if not args.only and not args.missing:
        write(root, cases, numbers)


if __name__ == "__main__":
    main()
