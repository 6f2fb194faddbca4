"""Answers, images, configurations and errors."""

from __future__ import annotations

import ctypes
import json
import os
import pickle
import tempfile
from pathlib import Path

import numpy as np

import candid
from candid import _abi
from candid._library import library

from .common import DOG, PARK, ROOT, STREET, ZOO, Case, model, run_python


def captions() -> dict[str, str]:
    return {c["image"]: c["caption"] for c in json.loads((ROOT / "examples" / "captions.json").read_text())}


class PilLike:
    """What the package asks of a PIL image."""

    mode = "P"

    def convert(self, mode: str) -> np.ndarray:
        assert mode == "RGB"
        return candid.Image(ZOO).numpy()


class Answers(Case):
    def test_caption(self) -> None:
        answer = model().caption(ZOO, max_new_tokens=200)
        self.assertTrue(answer.text.startswith("The image shows a zoo scene"))
        self.assertEqual(str(answer), answer.text)
        self.assertEqual(answer.finish, "eos")
        self.assertEqual(answer.tokens.dtype, np.int32)
        self.assertEqual(answer.tokens.shape, (answer.stats.n_generated,))
        self.assertEqual(answer.tokens[-1], 2)  # the end token
        self.assertEqual(answer.interventions, {})
        self.assertEqual([a.text for a in answer.answers], [answer.text])
        self.assertGreater(answer.stats.n_prompt, model().info.image_tokens)
        self.assertEqual(answer, model().ask(ZOO, candid.CAPTION_PROMPT))
        self.assertEqual(answer.stats.fingerprint, model().caption(ZOO).stats.fingerprint)

    def test_parameters(self) -> None:
        m = model()
        short = m.caption(ZOO, max_new_tokens=3)
        self.assertEqual((len(short.tokens), short.finish), (3, "length"))
        stopped = m.caption(ZOO, stop=["zoo", "ball"])
        self.assertEqual((stopped.text, stopped.finish), ("The image shows a ", "stop"))
        sampled = [m.caption(ZOO, temperature=2.0, top_p=0.95, top_k=50, seed=s, max_new_tokens=20) for s in (1, 1, 2)]
        self.assertEqual(sampled[0].text, sampled[1].text)
        self.assertNotEqual(sampled[0].text, sampled[2].text)
        plain = m.ask([], "USER: hello ASSISTANT:", conversation="plain", max_new_tokens=1)
        self.assertLess(plain.stats.n_prompt, m.info.image_tokens)
        wide = np.array(candid.Image(ZOO))[:100]
        pad, crop = (m.ask(wide, DOG, preprocess=p).stats.fingerprint for p in ("pad", "crop"))
        self.assertNotEqual(pad, crop)

    def test_several_answers(self) -> None:
        answer = model().caption(ZOO, {"decode": {"beams": 4, "answers": 3}}, max_new_tokens=20)
        self.assertEqual(len(answer.answers), 3)
        self.assertEqual(answer.text, answer.answers[0].text)
        scores = [a.score for a in answer.answers]
        self.assertEqual(scores, sorted(scores, reverse=True))
        self.assertLess(scores[0], 0)
        self.assertEqual(len({a.text for a in answer.answers}), 3)

    def test_many_are_as_one_by_one(self) -> None:
        exact = model("exact")
        requests = [(str(ZOO), DOG), (str(ZOO), "Is there a bird in the image?"), ([], "USER: hi"), ([PARK], DOG)]
        together = exact.ask_many(requests, max_new_tokens=12)
        for (images, question), answer in zip(requests, together):
            alone = exact.ask(images, question, max_new_tokens=12)
            self.assertEqual(answer, alone)
            np.testing.assert_array_equal(answer.tokens, alone.tokens)
        self.assertEqual((together.sharing.n_images, together.sharing.n_encoded), (3, 2))
        self.assertLess(together.sharing.n_prefilled, together.sharing.n_prompt)
        self.assertEqual(together.sharing.why_not, "")
        pixels = candid.Image(ZOO).numpy()  # one object
        self.assertEqual(exact.ask_many([(pixels, DOG), (pixels, "What?")], max_new_tokens=2).sharing.n_encoded, 1)
        self.assertEqual(len(exact.ask_many([])), 0)
        with self.assertRaises(candid.FileError):
            exact.ask_many([(ZOO, DOG), ("none.png", DOG)])

    def test_info(self) -> None:
        info = model().info
        self.assertEqual((info.name, info.n_layer, info.n_embd, info.image_tokens), ("candid-demo", 6, 192, 64))
        self.assertTrue(info.has_vision)
        self.assertEqual(info.conversation, "USER: <image>\n{prompt} ASSISTANT:")
        self.assertEqual(info.file_bytes, (ROOT / "models/demo/candid-demo.gguf").stat().st_size)


class Images(Case):
    def test_an_array_is_as_its_file(self) -> None:
        pixels = candid.Image(ZOO).numpy()
        expected = model().caption(ZOO)
        alpha = np.concatenate([pixels, np.full((*pixels.shape[:2], 1), 9, np.uint8)], axis=2)
        reversed_twice = np.ascontiguousarray(pixels[::-1, :, ::-1])[::-1, :, ::-1]  # not contiguous
        for same in (pixels, ZOO.read_bytes(), candid.Image(ZOO), candid.Image(pixels), str(ZOO), alpha, PilLike(),
                     reversed_twice):  # fmt: skip
            answer = model().caption(same)
            self.assertEqual(answer.stats.fingerprint, expected.stats.fingerprint, type(same))
        np.testing.assert_array_equal(np.asarray(candid.Image(candid.Image(pixels))), pixels)

    def test_grey(self) -> None:
        grey = np.arange(200, dtype=np.uint8).reshape(10, 20)
        for shape in ((10, 20), (10, 20, 1)):
            image = candid.Image(grey.reshape(shape))
            self.assertEqual((image.width, image.height), (20, 10))
            np.testing.assert_array_equal(image.numpy(), np.repeat(grey[:, :, None], 3, axis=2))

    def test_png(self) -> None:
        image = candid.Image(ZOO)
        np.testing.assert_array_equal(candid.Image(image.png()).numpy(), image.numpy())

    def test_what_is_no_image(self) -> None:
        for wrong, error, text in [
            (np.zeros((4, 4, 3)), TypeError, "expected an array of uint8 from 0 to 255, found float64"),
            (np.zeros((4, 4, 2), np.uint8), ValueError, "found shape (4, 4, 2)"),
            (np.zeros((0, 4, 3), np.uint8), ValueError, "found shape (0, 4, 3)"),
            (np.zeros(4, np.uint8), ValueError, "found shape (4,)"),
            (None, TypeError, "found NoneType"),
            (3, TypeError, "found int"),
            ("a\0b.png", candid.ArgumentError, "image: a NUL character is not allowed"),
        ]:
            with self.assertRaises(error) as raised:
                candid.Image(wrong)
            self.assertIn(text, str(raised.exception))


class Configs(Case):
    def test_every_form_does_the_same(self) -> None:
        plain = model().caption(STREET)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "pai.json")
            path.write_text('{"pai": {"alpha": 2, "gamma": 1, "layers": "all"}}')
            forms = [
                {"pai": {"alpha": 2, "gamma": 1, "layers": "all"}},
                path.read_text(),
                path,
                str(path),
                candid.Config(path),
                candid.Config(candid.Config(path)),
                candid.Config({"pai": {"gamma": 1}}, "pai.alpha=2", "pai.layers=all"),
            ]
            answers = [model().caption(STREET, form) for form in forms]
        self.assertEqual(len({a.stats.fingerprint for a in answers}), 1)
        self.assertNotEqual(answers[0].stats.fingerprint, plain.stats.fingerprint)
        self.assertTrue(answers[0].interventions["pai"]["active"])
        self.assertEqual(model().caption(STREET, {}).stats.fingerprint, plain.stats.fingerprint)

    def test_methods(self) -> None:
        methods = candid.methods()
        self.assertEqual(len(methods), 20)
        self.assertIn("PAI", methods["pai"]["title"])
        self.assertTrue(methods["vhr"]["description"])
        self.assertEqual(methods["pai"]["options"]["alpha"]["type"], "number")
        for name in methods:
            candid.Config({name: True})
        self.assertEqual(candid.schema()["title"], "candid configuration")

    def test_wrong_types(self) -> None:
        with self.assertRaises(TypeError):
            model().caption(ZOO, 3)
        with self.assertRaises(TypeError):
            candid.Config(candid.Config({}), "vhr=true")
        with self.assertRaises(ValueError):
            candid.Config({"pai": {"alpha": float("nan")}})


class Errors(Case):
    """The text of an exception is the C library's sentence."""

    def check(self, kind: type[candid.CandidError], status: int, sentence: str, function, *arguments, **more) -> None:
        with self.assertRaises(kind) as raised:
            function(*arguments, **more)
        error = raised.exception
        self.assertEqual((str(error), error.message, error.status), (sentence, sentence, status))
        self.assertIs(type(error), kind)
        again = pickle.loads(pickle.dumps(error))
        self.assertEqual((type(again), again.status, str(again)), (kind, status, sentence))

    @staticmethod
    def c_sentence(function: str, *arguments) -> str:
        """What the library itself says, without the package's help."""
        error, out = _abi.candid_error(), ctypes.c_void_p()
        status = getattr(library(), function)(*arguments, ctypes.byref(out), ctypes.byref(error))
        assert status == error.status != 0
        return bytes(error)[4:].split(b"\0")[0].decode()

    def test_sentences(self) -> None:
        m = model()
        for kind, status, fragment, function, argument, c_function, c_arguments in [
            (candid.FileError, 2, "none.png", m.caption, "none.png", "candid_image_load", [b"none.png"]),
            (candid.FormatError, 3, "found text", m.caption, b"no", "candid_image_load_memory", [b"no", 2, None]),
            (candid.FormatError, 3, "found text", m.caption, __file__, "candid_image_load", [os.fsencode(__file__)]),
            (candid.FileError, 2, "no.gguf", candid.Model.open, "no.gguf", "candid_model_open", [b"no.gguf", None]),
            (candid.FormatError, 3, 'key vhrr: there is no such method; did you mean "vhr"?', candid.Config,
             {"vhrr": 1}, "candid_config_parse", [b'{"vhrr": 1}', 11, None]),
        ]:  # fmt: skip
            sentence = self.c_sentence(c_function, *c_arguments)
            self.assertIn(fragment, sentence)
            self.check(kind, status, sentence, function, argument)
        self.check(
            candid.ArgumentError,
            1,
            "temperature must be a finite number, 0 or more, not -1",
            m.caption,
            ZOO,
            temperature=-1,
        )
        self.check(
            candid.ContextLengthError,
            6,
            "the prompt has 81 tokens and 500 new ones were requested, but the context window holds 512",
            m.caption,
            ZOO,
            max_new_tokens=500,
        )
        self.check(
            candid.ArgumentError,
            1,
            "n_ctx: expected 0 to 512 (the context window the model was trained for), found 513",
            candid.Model.demo(n_ctx=513).caption,
            ZOO,
        )

    def test_builtin_families(self) -> None:
        for kind, family in [
            (candid.ArgumentError, ValueError),
            (candid.FileError, OSError),
            (candid.FormatError, ValueError),
            (candid.OutOfMemoryError, MemoryError),
            (candid.InternalError, RuntimeError),
        ]:
            self.assertTrue(issubclass(kind, family) and issubclass(kind, candid.CandidError))

    def test_before_the_library(self) -> None:
        m = model()
        for error, more in [
            (TypeError, {"temprature": 1}),
            (TypeError, {"stop": "word"}),
            (TypeError, {"max_new_tokens": 1.5}),
            (candid.ArgumentError, {"max_new_tokens": 2**31}),
            (candid.ArgumentError, {"max_new_tokens": -1}),
            (candid.ArgumentError, {"seed": -1}),
            (candid.ArgumentError, {"preprocess": "stretch"}),
            (candid.ArgumentError, {"stop": [""]}),
            (candid.ArgumentError, {"conversation": "no place"}),
        ]:
            with self.assertRaises(error, msg=str(more)):
                m.caption(ZOO, **more)
        with self.assertRaises(candid.ArgumentError):
            m.ask(ZOO, "a\0b")
        with self.assertRaises(TypeError):
            m.ask(ZOO, None)
        with self.assertRaises(candid.ArgumentError):
            candid.Model.demo(precision="best")

    def test_library_not_found(self) -> None:
        code = """
            import candid
            try:
                candid.Model.demo()
            except ImportError as e:
                print(e)
        """
        out = run_python(code, CANDID_LIBRARY="/none/libcandid.so").stdout
        self.assertTrue(out.startswith("/none/libcandid.so: no such file; install the package"), out)
        libc = next(p for p in Path("/lib").rglob("libm.so.6")) if os.path.exists("/lib") else Path("none")
        out = run_python(code, CANDID_LIBRARY=str(libc)).stdout
        self.assertIn("is not the libcandid that this package was written for", out)
