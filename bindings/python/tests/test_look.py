"""Vectors of an image, attention, overlays."""

from __future__ import annotations

import struct

import numpy as np

import candid

from .common import PARK, ZOO, Case, model


class Encode(Case):
    def test_shapes_and_values(self) -> None:
        m = model("exact")
        tokens = m.encode_image(ZOO)
        self.assertEqual((tokens.shape, tokens.dtype), ((64, 192), np.float32))
        self.assertEqual(m.encode_image(ZOO, features="encoder").shape, (64, 160))
        np.testing.assert_array_equal(tokens, m.encode_image(candid.Image(ZOO).numpy(), preprocess="pad"))
        wide = np.asarray(candid.Image(ZOO))[:80]
        self.assertTrue((m.encode_image(wide, "pad") != m.encode_image(wide, "crop")).any())
        self.assertGreater(np.abs(tokens - m.encode_image(PARK)).max(), 0.1)

    def test_refusals(self) -> None:
        for more in ({"preprocess": "anyres"}, {"preprocess": "squash"}, {"features": "all"}):
            with self.assertRaises(candid.ArgumentError):
                model().encode_image(ZOO, **more)


class Look(Case):
    def test_arrays(self) -> None:
        m = model()
        look = m.look(ZOO, max_new_tokens=20)
        self.assertEqual(look.answer, m.caption(ZOO, max_new_tokens=20))
        self.assertEqual((look.layers.shape, look.layers.dtype), ((20, 6, 8, 8), np.float32))
        self.assertTrue((look.layers >= 0).all() and (look.layers.sum((2, 3)) <= 1.0001).all())
        self.assertGreater(float(look.layers.sum((2, 3)).max()), 0.2)
        np.testing.assert_allclose(look.maps, look.layers.mean(1), rtol=1e-6)
        self.assertEqual(len(look.pieces), 20)
        self.assertEqual("".join(look.pieces).strip(), look.answer.text)
        again = m.look(ZOO, answer=look.answer)
        np.testing.assert_array_equal(again.layers, look.layers)

    def test_selection(self) -> None:
        look = model().look(ZOO)
        bird = look.pieces.index(" bird")
        self.assertEqual(look.find("bird"), [bird])
        self.assertEqual(look.find("Sports BALL"), [bird - 7, bird - 6])
        np.testing.assert_array_equal(look.map("bird"), look.map(bird))
        np.testing.assert_array_equal(look.map(-1, -1), look.layers[-1, -1])
        np.testing.assert_allclose(look.map(slice(0, 3), [1, 2]), look.layers[:3, 1:3].mean((0, 1)), rtol=1e-6)
        np.testing.assert_allclose(look.map(), look.maps.mean(0), rtol=1e-5)
        for wrong in ({"token": 1000}, {"layers": 6}, {"token": "bir"}, {"token": ""}, {"token": slice(0, 0)}):
            with self.assertRaises(candid.ArgumentError):
                look.map(**wrong)

    def test_methods_act(self) -> None:
        m = model()
        answer = m.caption(ZOO)
        plain = m.look(ZOO, answer=answer)
        more = m.look(ZOO, config={"pai": {"alpha": 2, "gamma": 1, "layers": "all"}}, answer=answer)
        self.assertGreater(more.layers[:, 3:].sum(), 1.05 * plain.layers[:, 3:].sum())
        with self.assertRaisesRegex(candid.ArgumentError, "vicrop"):
            m.look(ZOO, config={"vicrop": True})

    def test_overlay(self) -> None:
        look = model().look(ZOO, max_new_tokens=12)
        original = candid.Image(ZOO)
        picture = look.overlay(4)
        self.assertEqual((picture.width, picture.height), (original.width, original.height))
        pixels = picture.numpy()
        self.assertTrue((pixels != original.numpy()).any())
        self.assertTrue((pixels != look.overlay(5).numpy()).any())
        self.assertTrue((pixels != look.overlay(4, layers=0).numpy()).any())
        # brightest at the cell of the greatest value; much darker where the attention is least
        values = look.map(4)
        step_y, step_x = original.height / 8, original.width / 8
        sums = pixels.astype(int).sum(2)

        def near(cell: int) -> float:
            y, x = divmod(cell, 8)
            rows = slice(int((y + 0.3) * step_y), int((y + 0.7) * step_y))
            return float(sums[rows, int((x + 0.3) * step_x) : int((x + 0.7) * step_x)].mean())

        self.assertGreater(near(int(values.argmax())), near(int(values.argmin())) + 100)
        dark = look.overlay(4, brightest=100.0).numpy()
        self.assertLess(dark.mean(), pixels.mean())
        with self.assertRaises(candid.ArgumentError):
            look.overlay(4, brightest=-1)

    def test_notebooks(self) -> None:
        look = model().look(ZOO, max_new_tokens=5)
        png = look._repr_png_()
        self.assertEqual(png[:8], b"\x89PNG\r\n\x1a\n")
        self.assertEqual(struct.unpack(">II", png[16:24]), (look.image.width, look.image.height))
        np.testing.assert_array_equal(candid.Image(png).numpy(), look.overlay().numpy())
        self.assertEqual(look.overlay()._repr_png_(), png)
