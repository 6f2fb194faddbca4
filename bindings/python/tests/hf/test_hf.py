"""candid.hf in a host that does everything hosts do: padding, beams, threads, other types, broken calls."""
from __future__ import annotations

import copy
import ctypes
import os
import shutil
import subprocess
import tempfile
import threading
import types
import unittest
import warnings
from unittest import mock

import hf_support as hf
import torch
from transformers import StoppingCriteria, StoppingCriteriaList

import candid.hf
from candid.errors import CandidError, UnsupportedError
from candid.hf import _host, _plugin, _views

EDITS = {"vhr": {}, "pai": {"gamma": 1}}
STEPS = 12


def tokens(model, inputs, **options):
    options = {"do_sample": False, "max_new_tokens": STEPS, **options}
    return model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1]:].tolist()


def logits(model, inputs, **options):
    out = model.generate(**inputs, do_sample=False, max_new_tokens=6, output_logits=True, return_dict_in_generate=True, **options)
    return torch.cat(out.logits)


def hook_count(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


class During(StoppingCriteria):
    """Does something after the second token; keeps what it raised."""

    def __init__(self, action):
        self.action, self.calls, self.result = action, 0, None

    def __call__(self, input_ids, scores, **_):
        self.calls += 1
        if self.calls == 2:
            try:
                self.result = self.action()
            except Exception as e:
                self.result = e
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


class Attaching(unittest.TestCase):
    def setUp(self):
        self.model, self.inputs = hf.model_of(), hf.prompt(hf.scene(3))

    def refused(self, pattern, action, *args, **kwargs):
        with self.assertRaisesRegex(CandidError, pattern):
            action(*args, **kwargs)

    def test_detached_and_idle_models_are_the_same_bit_for_bit(self):
        before = logits(self.model, self.inputs)
        with hf.attach():
            self.assertTrue(torch.equal(logits(self.model, self.inputs), before))
        with hf.attach(EDITS):
            self.assertFalse(torch.equal(logits(self.model, self.inputs), before))
        self.assertTrue(torch.equal(logits(self.model, self.inputs), before))
        self.assertEqual(hook_count(self.model), 0)
        self.assertEqual(self.model.model.language_model.config._attn_implementation, "sdpa")
        self.assertNotIn("generate", self.model.__dict__)

    def test_idle_attachments_leave_no_hook(self):
        for config, expected in ({}, 0), ({"mma": {}}, 0), ({"hgai": {"layers": "5"}}, 3):    # 3: those around every pass
            inside = During(lambda: hook_count(self.model))
            with self.subTest(config), hf.attach(config):
                tokens(self.model, self.inputs, stopping_criteria=StoppingCriteriaList([inside]))
                self.assertEqual(inside.result, expected)

    def test_layers_nobody_wants_go_the_old_way(self):
        with torch.no_grad():
            plain = self.model.generate(**self.inputs, do_sample=False, max_new_tokens=1, output_hidden_states=True,
                                        return_dict_in_generate=True).hidden_states[0]
            with hf.attach({"hgai": {"layers": "5"}}):
                edited = self.model.generate(**self.inputs, do_sample=False, max_new_tokens=1, output_hidden_states=True,
                                             return_dict_in_generate=True).hidden_states[0]
        for layer in range(6):    # what enters layers 0 to 5
            self.assertTrue(torch.equal(plain[layer], edited[layer]), layer)
        self.assertFalse(torch.equal(plain[6], edited[6]))

    def test_eager_and_sdpa_hosts_agree(self):
        eager = hf.new_model(attn_implementation="eager")
        for config in (EDITS, {"cca": {}}, {"vcd": {}}):
            with hf.attach(config), hf.attach(config, model=eager):
                one, other = logits(self.model, self.inputs), logits(eager, self.inputs)
                self.assertTrue(torch.equal(one.isfinite(), other.isfinite()))
                apart = (one - other)[one.isfinite()].abs().max()
            self.assertLess(float(apart), 1e-3)
        self.assertEqual(eager.model.language_model.config._attn_implementation, "eager")

    def test_one_attachment_at_a_time(self):
        with hf.attach(EDITS):
            self.refused("attached to already", hf.attach)
        self.refused("not attached", candid.hf.detach, self.model)
        hf.attach()
        candid.hf.detach(self.model)
        self.assertNotIn("generate", self.model.__dict__)

    def test_detach_during_generation_is_refused(self):
        attached = hf.attach(EDITS)
        inside = During(attached.detach)
        expected = tokens(self.model, self.inputs)
        self.assertEqual(tokens(self.model, self.inputs, stopping_criteria=StoppingCriteriaList([inside])), expected)
        self.assertRegex(str(inside.result), "is generating: detach it when")
        attached.detach()
        attached.detach()    # a second time does nothing

    def test_an_exception_leaves_nothing_behind(self):
        before = logits(self.model, self.inputs)

        class Stop(Exception):
            pass

        def stop(*_, **__):
            raise Stop

        with hf.attach({"vcd": {}, "pai": {"gamma": 1}}):
            with self.assertRaises(Stop):
                tokens(self.model, self.inputs, stopping_criteria=StoppingCriteriaList([stop]))
            self.assertEqual(hook_count(self.model), 0)
            self.assertEqual(self.model.model.language_model.config._attn_implementation, "sdpa")
            tokens(self.model, self.inputs)
        self.assertTrue(torch.equal(logits(self.model, self.inputs), before))

    def test_positional_arguments(self):
        options = copy.deepcopy(self.model.generation_config)
        options.update(do_sample=False, max_new_tokens=STEPS, use_cache=False)
        with hf.attach(EDITS):
            self.refused("use_cache=False", self.model.generate, self.inputs.input_ids, options, pixel_values=self.inputs.pixel_values)
            options.use_cache = True
            found = self.model.generate(self.inputs.input_ids, options, pixel_values=self.inputs.pixel_values)
            self.assertEqual(found[:, self.inputs.input_ids.shape[1]:].tolist(), tokens(self.model, self.inputs))

    def test_somebody_elses_generate_is_not_hidden(self):
        model = hf.new_model()
        model.generate = lambda *args, **kwargs: "theirs"
        self.refused("replaced by another library", hf.attach, EDITS, model=model)
        self.assertEqual(model.generate(), "theirs")

    def test_copies_are_refused(self):
        with hf.attach():
            self.refused("detach it first", copy.deepcopy, self.model)
            with tempfile.TemporaryDirectory() as folder:
                self.model.save_pretrained(folder)    # weights are another matter
                self.assertIn("model.safetensors", os.listdir(folder))

    def test_models_and_versions_that_are_not_supported(self):
        self.refused("expected a LlavaForConditionalGeneration", candid.hf.attach, torch.nn.Linear(1, 1))
        with mock.patch.object(_host.transformers, "__version__", "4.20.1"):
            self.refused("4.20.1: candid.hf works with", hf.attach)
        with mock.patch.object(_host.transformers, "__version__", "5.1.0"):
            self.refused("5.1.0: candid.hf works with", hf.attach)
        with mock.patch.object(_host.transformers, "__version__", "4.58.0"), self.assertWarnsRegex(UserWarning, "was tested with"):
            hf.attach().detach()

    def test_compiled_models_are_refused(self):
        self.refused("wrapped by torch.compile", candid.hf.attach, torch.compile(self.model), EDITS)
        compiled = hf.new_model()
        compiled.compile()
        with hf.attach(EDITS, model=compiled):
            self.refused("forward is compiled", tokens, compiled, self.inputs)
        compiled = hf.new_model()
        compiled.forward = torch.compile(compiled.forward)
        with hf.attach(EDITS, model=compiled):
            self.refused("forward is compiled", tokens, compiled, self.inputs)

    def test_flash_attention_gives_way(self):
        text = self.model.model.language_model.config
        with hf.attach({"pai": {"gamma": 1}}):
            expected = tokens(self.model, self.inputs)
            text._attn_implementation = "flash_attention_2"    # as if it were installed
            try:
                with self.assertWarnsRegex(UserWarning, "'flash_attention_2' does not show its rows"):
                    found = tokens(self.model, self.inputs)
                self.assertEqual(text._attn_implementation, "flash_attention_2")
            finally:
                text._attn_implementation = "sdpa"
        self.assertEqual(found, expected)

    def test_configurations(self):
        self.refused("nonsense", hf.attach, {"nonsense": True})
        self.refused("temperature|chooses the tokens", hf.attach, {"decode": {"temperature": 1}})
        self.refused("vicrop", hf.attach, {"vicrop": True})
        with hf.attach(hf.path("configs", "vhr.json")) as attached:
            tokens(self.model, self.inputs)
            self.assertTrue(attached.reports[0]["vhr"]["active"])

    def test_capabilities(self):
        can = candid.hf.capabilities(self.model)
        self.assertIn("sink_dims", can["var"]["why"])
        self.assertTrue(candid.hf.capabilities(self.model, {"var": {"sink_dims": [181], "tau": 4}})["var"]["runs"])
        for name in ("vhr pai paint hgai act vista cca mma head_scale dola vcd damro icd lqcd opera").split():
            self.assertTrue(can[name]["runs"], (name, can[name]))
        self.assertFalse(can["vicrop"]["runs"])
        self.assertTrue(can["vicrop"]["why"])


class Prompts(unittest.TestCase):
    QUESTIONS = ["Isn't there a dog in the image?", "Is there a cow in the image?", hf.DESCRIBE]

    def setUp(self):
        self.model = hf.model_of()

    def batch(self, side="left"):
        processor = hf.processor_of()
        processor.tokenizer.padding_side = side
        try:
            return processor(images=[hf.scene(i) for i in range(3)], return_tensors="pt", padding=True,
                             text=[hf.CONVERSATION.replace("{prompt}", q) for q in self.QUESTIONS])
        finally:
            processor.tokenizer.padding_side = "left"

    def test_left_padding(self):
        batch = self.batch()
        self.assertTrue((batch.attention_mask == 0).any())
        for config in ({"vhr": {}, "pai": {}}, {"cca": {}}, {"vista": {}, "dola": {}}, {"vcd": {}, "damro": {}},
                       {"icd": {}, "lqcd": {}}, {"mma": {}, "act": {}, "paint": {}}, {"vcd": {"first_token_only": True}}):
            with self.subTest(config), hf.attach(config) as attached:
                one = [tokens(self.model, hf.prompt(hf.scene(i), q))[0] for i, q in enumerate(self.QUESTIONS)]
                together = tokens(self.model, batch, pad_token_id=2)
                for a, b in zip(one, together):
                    self.assertEqual(a, b[:len(a)])
                    self.assertLessEqual(set(b[len(a):]), {2})
                self.assertEqual(len(attached.reports), 3)

    def test_right_padding_is_refused(self):
        with hf.attach(EDITS), self.assertRaisesRegex(UnsupportedError, "padded on the left"):
            tokens(self.model, self.batch("right"))

    def test_beams_of_a_batch_keep_their_branches(self):
        batch = self.batch()
        for config in ({"vcd": {}}, {"vhr": {}}, {"cca": {}, "icd": {}}):
            with self.subTest(config), hf.attach(config):
                one = [tokens(self.model, hf.prompt(hf.scene(i), q), num_beams=3)[0] for i, q in enumerate(self.QUESTIONS)]
                together = tokens(self.model, batch, num_beams=3, pad_token_id=2)
                for a, b in zip(one, together):
                    self.assertEqual(a, b[:len(a)])

    def test_samples_repeat_with_their_seed(self):
        inputs = hf.prompt(hf.scene(1))
        with hf.attach({"vcd": {}, "vhr": {}}):
            found = []
            for _ in range(2):
                torch.manual_seed(5)
                found.append(tokens(self.model, inputs, do_sample=True, temperature=1.5, num_return_sequences=3))
            self.assertEqual(found[0], found[1])
            self.assertEqual(len(found[0]), 3)

    def test_leading_questions_come_back_as_they_were(self):
        inputs = hf.prompt(hf.scene(0), self.QUESTIONS[0])
        neutral = hf.prompt(hf.scene(0), "Is there a dog in the image?")
        self.assertNotEqual(inputs.input_ids.shape, neutral.input_ids.shape)
        with hf.attach({"lqcd": {"alpha": 0, "beta": 0}}):
            out = self.model.generate(**inputs, do_sample=False, max_new_tokens=STEPS)
        self.assertTrue(torch.equal(out[:, :inputs.input_ids.shape[1]], inputs.input_ids))
        self.assertEqual(out[:, inputs.input_ids.shape[1]:].tolist(), tokens(self.model, neutral))

    def test_requests_that_cannot_be_found(self):
        with self.assertRaisesRegex(UnsupportedError, "needs the model's processor"):
            candid.hf.attach(self.model, {"lqcd": {}})
        odd = hf.processor_of()(images=hf.scene(0), text="<image> Isn't there a dog?", return_tensors="pt")
        with hf.attach({"lqcd": {}}), self.assertRaisesRegex(UnsupportedError, "the prompt is not"):
            tokens(self.model, odd)
        with hf.attach(EDITS):
            tokens(self.model, odd)    # methods that put no text in work with any prompt

    def test_text_alone(self):
        inputs = hf.processor_of().tokenizer("USER: Is there a dog? ASSISTANT:", return_tensors="pt")
        plain = logits(self.model, inputs)
        with hf.attach({"vhr": {}, "pai": {"gamma": 1}, "var": {"sink_dims": [181], "tau": 4}}) as attached:
            self.assertTrue(torch.equal(logits(self.model, inputs), plain))
            self.assertFalse(attached.reports[0]["vhr"]["active"])

    def test_two_images(self):
        images = [hf.scene(0), hf.scene(1)]
        inputs = hf.prompt(images, "Is there a dog in the images?")
        for config in (EDITS, {"vcd": {}}, {"damro": {}}, {"cca": {}}):
            with self.subTest(config), hf.attach(config) as attached:
                tokens(self.model, inputs)
                self.assertTrue(all(r.get("active", True) for r in attached.reports[0].values()))

    def test_ask(self):
        with hf.attach(EDITS) as attached:
            self.assertIn("The image shows", attached.ask(hf.scene(0), hf.DESCRIBE, do_sample=False, max_new_tokens=STEPS))

    def test_opera(self):
        inputs = hf.prompt(hf.scene(0))
        with hf.attach({"opera": True, "decode": {"strategy": "opera", "beams": 2}}) as attached:
            with self.assertRaisesRegex(UnsupportedError, "generate_opera"):
                self.model.generate(**inputs)
            ids = candid.hf.generate_opera(self.model, **inputs, max_new_tokens=8)
            self.assertEqual(ids.shape[1], inputs.input_ids.shape[1] + 8)
            with self.assertRaisesRegex(UnsupportedError, "one prompt"):
                candid.hf.generate_opera(self.model, **self.batch())
            self.assertIn("opera", attached.reports[0])
        with hf.attach(EDITS), self.assertRaisesRegex(UnsupportedError, "opera is off"):
            candid.hf.generate_opera(self.model, **inputs)


class WaysOfGenerating(unittest.TestCase):
    def setUp(self):
        self.model, self.inputs = hf.model_of(), hf.prompt(hf.scene(3))

    def test_refused(self):
        assistant = hf.new_model()
        with hf.attach(EDITS):
            for options, pattern in ((dict(use_cache=False), "use_cache=False"),
                                     (dict(prefill_chunk_size=16), "prefill_chunk_size"),
                                     (dict(assistant_model=assistant), "assistant_model"),
                                     (dict(prompt_lookup_num_tokens=3), "prompt_lookup_num_tokens"),
                                     (dict(cache_implementation="static"), "static|DynamicCache"),
                                     (dict(penalty_alpha=0.6, top_k=4), "penalty_alpha"),
                                     (dict(num_beams=4, num_beam_groups=2, diversity_penalty=0.5), "num_beam_groups")):
                with self.subTest(options), self.assertRaisesRegex(UnsupportedError, pattern):
                    tokens(self.model, self.inputs, **options)
            with self.assertRaisesRegex(UnsupportedError, "expected input_ids"):
                self.model.generate(inputs_embeds=torch.zeros(1, 4, 192))
            out = self.model.generate(**self.inputs, max_new_tokens=2, return_dict_in_generate=True)
            with self.assertRaisesRegex(UnsupportedError, "earlier call"):
                self.model.generate(input_ids=out.sequences, past_key_values=out.past_key_values)
            broken = dict(self.inputs, pixel_values=self.inputs.pixel_values.repeat(2, 1, 1, 1))
            with self.assertRaises(Exception):
                tokens(self.model, broken)
            tokens(self.model, self.inputs)

    def test_idle_attachments_allow_what_needs_no_cache(self):
        expected = tokens(self.model, self.inputs, use_cache=False)
        with hf.attach():
            self.assertEqual(tokens(self.model, self.inputs, use_cache=False), expected)

    def test_half_precision(self):
        for dtype, bound in ((torch.bfloat16, 0.1), (torch.float16, 0.02)):
            model = hf.new_model(dtype=dtype)
            for config in (EDITS, {"vcd": {}, "dola": {}}, {"cca": {}, "act": {}}, {"vista": {}}):
                with self.subTest((dtype, config)), hf.attach(config), hf.attach(config, model=model):
                    inputs = self.inputs.copy()
                    inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
                    exact, half = (logits(m, i)[0].float() for m, i in ((self.model, self.inputs), (model, inputs)))
                    both = exact.isfinite() & half.isfinite()
                    self.assertGreater(int(both.sum()), 0)
                    self.assertLess(float((exact - half)[both].abs().max() / exact[both].abs().max()), bound)

    def test_another_type_after_attaching(self):
        model = hf.new_model()
        with hf.attach(EDITS, model=model):
            tokens(model, self.inputs)
            model.to(torch.bfloat16)
            inputs = self.inputs.copy()
            inputs["pixel_values"] = inputs["pixel_values"].to(torch.bfloat16)
            self.assertEqual(len(tokens(model, inputs)[0]) > 0, True)

    def test_inference_mode(self):
        with hf.attach(EDITS):
            expected = tokens(self.model, self.inputs)
            with torch.inference_mode():
                self.assertEqual(tokens(self.model, self.inputs), expected)

    def test_training_steps_are_not_touched(self):
        model = hf.new_model()
        inputs = {**self.inputs, "labels": self.inputs["input_ids"]}

        def step():
            model.zero_grad()
            loss = model(**inputs).loss
            loss.backward()
            return loss.item(), model.lm_head.weight.grad.clone()

        loss, gradient = step()
        with hf.attach(EDITS, model=model):
            tokens(model, self.inputs)
            again = step()
        self.assertEqual(again[0], loss)
        self.assertTrue(torch.equal(again[1], gradient))

    def test_two_threads(self):
        with hf.attach(EDITS):
            expected = tokens(self.model, self.inputs)
            with torch.no_grad():
                plain = self.model(**self.inputs).logits

            def elsewhere():
                out = {}

                def work():
                    try:
                        tokens(self.model, self.inputs)
                    except CandidError as e:
                        out["generate"] = e
                    with torch.no_grad():
                        out["forward"] = self.model(**self.inputs).logits

                thread = threading.Thread(target=work)
                thread.start()
                thread.join()
                return out

            inside = During(elsewhere)
            self.assertEqual(tokens(self.model, self.inputs, stopping_criteria=StoppingCriteriaList([inside])), expected)
            self.assertRegex(str(inside.result["generate"]), "another call is generating")
            self.assertTrue(torch.equal(inside.result["forward"], plain))    # another thread's passes are not edited

    def test_two_models_in_two_threads(self):
        models, expected, found = [self.model, hf.new_model()], [], {}
        configs = [EDITS, {"vcd": {}}]
        attached = [hf.attach(c, model=m) for c, m in zip(configs, models)]
        try:
            expected = [tokens(m, self.inputs) for m in models]
            threads = [threading.Thread(target=lambda i=i: found.update({i: tokens(models[i], self.inputs)})) for i in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual([found[0], found[1]], expected)
        finally:
            for a in attached:
                a.detach()


class Declarations(unittest.TestCase):
    """_plugin.py against include/candid/plugin.h, by a C compiler."""

    STRUCTS = {"candid_host": _plugin.Host, "candid_needs": _plugin.Needs, "candid_branch": _plugin.Branch,
               "candid_view": _plugin.View, "candid_span": _plugin.Span, "candid_tap": _plugin.Tap, "candid_run": _plugin.Run,
               "candid_reach": _plugin.Reach, "candid_segment": _plugin.Segment, "candid_order": _plugin.Order,
               "candid_search_params": _plugin.SearchParams}

    def test_structs(self):
        compiler = shutil.which(os.environ.get("CC", "cc"))
        if not compiler:
            self.skipTest("no C compiler")
        lines, expected = [], []
        for name, struct in self.STRUCTS.items():
            lines.append(f'printf("{name} %zu\\n", sizeof({name}));')
            expected.append(f"{name} {ctypes.sizeof(struct)}")
            for field, _ in struct._fields_:
                lines.append(f'printf("{name}.{field} %zu %zu\\n", offsetof({name}, {field}), sizeof((({name} *)0)->{field}));')
                expected.append(f"{name}.{field} {getattr(struct, field).offset} {getattr(struct, field).size}")
        with tempfile.TemporaryDirectory() as work:
            source, program = os.path.join(work, "sizes.c"), os.path.join(work, "sizes")
            with open(source, "w", encoding="utf-8") as f:
                f.write("#include <candid/plugin.h>\n#include <stddef.h>\n#include <stdio.h>\nint main(void) {\n" +
                        "\n".join(lines) + "\n}\n")
            subprocess.run([compiler, "-std=c11", "-I" + hf.path("include"), source, "-o", program], check=True)
            found = subprocess.run([program], check=True, capture_output=True, text=True).stdout.splitlines()
        self.assertEqual(found, expected)

    def test_the_library_has_every_function(self):
        self.assertGreaterEqual(_plugin.lib().candid_abi_version(), _plugin.ABI_VERSION)


class Views(unittest.TestCase):
    def test_other_memory_and_types(self):
        with self.assertRaisesRegex(UnsupportedError, "float64"):
            _views.view(torch.zeros(2, dtype=torch.float64))
        with self.assertRaisesRegex(UnsupportedError, "meta"):
            _views.view(torch.zeros(2, device="meta"))

    def test_strides(self):
        x = torch.zeros(4, 6).t()[1:, ::2]
        v = _views.view(x)
        self.assertEqual((v.data, list(v.shape[:2]), list(v.strides[:2])), (x.data_ptr(), list(x.shape), list(x.stride())))

    def test_a_library_without_cuda_gets_copies(self):
        class Elsewhere:    # a tensor the library cannot reach
            device = types.SimpleNamespace(type="cuda", index=0)

            def __init__(self, x):
                self.x = x

            def to(self, _):
                return self.x.clone()

            def copy_(self, x):
                self.x = x

        def refuse(tensor):
            if isinstance(tensor, Elsewhere):
                raise UnsupportedError(4, "no CUDA")
            return tensor

        viewer, x, begun = _views.Viewer(), Elsewhere(torch.zeros(3)), []
        with mock.patch.object(_views, "view", refuse):
            with self.assertWarnsRegex(UserWarning, "without CUDA"):
                viewer.show(lambda v: v.add_(1), x, again=lambda: begun.append(1))
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                viewer.show(lambda v: v.add_(1), x)
                viewer.show(lambda v: v.add_(1), x, edits=False)
        self.assertEqual(x.x.tolist(), [2, 2, 2])
        self.assertEqual(begun, [1])


if __name__ == "__main__":
    hf.run()
