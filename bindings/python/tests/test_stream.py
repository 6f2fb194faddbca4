"""Streams and chats."""

from __future__ import annotations

import gc
import threading
import weakref

import candid

from .common import DOG, STREET, ZOO, Case, model

CAPTION = candid.CAPTION_PROMPT


class Streams(Case):
    def test_pieces_are_the_answer(self) -> None:
        for config in (None, {"vcd": True}, {"decode": {"beams": 3}}):
            stream = model().stream(ZOO, CAPTION, config, max_new_tokens=40)
            pieces = list(stream)
            answer = model().caption(ZOO, config, max_new_tokens=40)
            self.assertEqual("".join(pieces), answer.text)
            self.assertEqual(stream.result, answer)
            self.assertEqual(stream.result.stats.fingerprint, answer.stats.fingerprint)
            self.assertEqual(len(pieces) == 1, config == {"decode": {"beams": 3}})
            self.assertEqual(list(stream), [])

    def test_next_and_result(self) -> None:
        stream = model().stream(ZOO, CAPTION)
        self.assertEqual(next(stream), "The")
        answer = model().caption(ZOO)
        self.assertEqual(stream.result, answer)  # reads the rest
        self.assertRaises(StopIteration, next, stream)

    def test_leaving_the_loop_stops(self) -> None:
        m = model("exact")
        for seed in range(100):  # an answer so long that it cannot be over when its first piece is read
            long = {"temperature": 50.0, "seed": seed, "max_new_tokens": 400}
            whole = m.ask([], "USER: a ASSISTANT:", **long)
            if len(whole.tokens) > 300:
                break
        stream = m.stream([], "USER: a ASSISTANT:", **long)
        for piece in stream:
            break
        answer = stream.result
        self.assertEqual(answer.finish, "cancelled")
        self.assertTrue(whole.text.startswith(answer.text) and answer.text.startswith(piece))
        self.assertLess(len(answer.tokens), len(whole.tokens))
        with m.stream([], "USER: a ASSISTANT:", **long) as other:
            self.assertEqual(next(other), piece)
        self.assertEqual(other.result.finish, "cancelled")
        self.assertEqual(list(other), [])
        with self.assertRaises(ZeroDivisionError):
            for _ in (third := m.stream([], "USER: a ASSISTANT:", **long)):
                raise ZeroDivisionError
        self.assertEqual(third.result.finish, "cancelled")

    def test_closed_before_the_first_piece(self) -> None:
        stream = model("exact").stream([ZOO, STREET] * 2, CAPTION)  # which takes a while to read
        stream.close()
        stream.close()
        for _ in range(2):
            with self.assertRaises(candid.CancelledError):
                stream.result

    def test_dropped(self) -> None:
        stream = model("exact").stream(ZOO, CAPTION)
        job = stream._job
        del stream
        gc.collect()
        self.assertTrue(job.done.wait(20))
        self.assertIsInstance(job._error, candid.CancelledError)

    def test_errors_surface(self) -> None:
        for stream in (model().stream(ZOO, CAPTION, temperature=-1), model().stream([], "a", {"vcd": True})):
            with self.assertRaises(candid.ArgumentError):
                next(stream)
            self.assertEqual(list(stream), [])
            with self.assertRaises(candid.ArgumentError):
                stream.result
        with self.assertRaises(candid.FileError):
            model().stream("none.png", CAPTION)

    def test_characters_stay_whole(self) -> None:
        """At a high temperature the model says single bytes: pieces are characters made of them, never halves."""
        found = 0
        for seed in range(400):
            stream = model().stream([], "USER: a ASSISTANT:", temperature=50.0, seed=seed, max_new_tokens=60)
            pieces = list(stream)
            self.assertEqual("".join(pieces), stream.result.text)
            found += any(not c.isascii() and c != "\ufffd" for piece in pieces for c in piece)
            if found == 3:
                return
        self.fail("no answer has a character of several bytes")


class Threads(Case):
    def test_no_thread_is_left(self) -> None:
        before = set(threading.enumerate())
        m = candid.Model.demo(threads=1)
        for _ in range(5):
            for _ in m.stream(ZOO, CAPTION):
                break
            list(m.stream(ZOO, DOG))
        streams = [m.stream(ZOO, CAPTION) for _ in range(3)]
        m.close()
        self.assertEqual(set(threading.enumerate()) - before, set())
        for stream in streams:
            self.assertTrue(stream._job.done.is_set())
        with self.assertRaises(candid.ArgumentError):
            m.stream(ZOO, CAPTION)

    def test_models_are_collected(self) -> None:
        before = set(threading.enumerate())
        m = candid.Model.demo(threads=1)
        m.caption(ZOO, max_new_tokens=2)
        engine, gone = m._engine, weakref.ref(m)
        m.itself = m  # a cycle
        del m
        gc.collect()
        self.assertIsNone(gone())
        self.assertFalse(engine.model)
        self.assertEqual(set(threading.enumerate()) - before, set())


class Chats(Case):
    def test_what_the_model_reads(self) -> None:
        """Each turn is the request of the conversation so far."""
        m = model()
        chat = m.chat(ZOO, max_new_tokens=20)
        first = chat.ask(DOG)
        self.assertEqual(first, m.ask(ZOO, DOG, max_new_tokens=20))
        second = chat.ask("And a bird?", max_new_tokens=4)
        rendered = f"{DOG} ASSISTANT: {first.text}</s>USER: And a bird?"
        self.assertEqual(second.stats.fingerprint, m.ask(ZOO, rendered, max_new_tokens=4).stats.fingerprint)
        self.assertEqual([(t.question, t.answer) for t in chat.turns], [(DOG, first), ("And a bird?", second)])
        self.assertGreater(second.stats.n_prompt, first.stats.n_prompt)
        whole = f"USER: <image>\n{rendered} ASSISTANT:"  # without a template's help
        self.assertEqual(
            m.ask(ZOO, whole, conversation="plain", max_new_tokens=4).stats.fingerprint, second.stats.fingerprint
        )

    def test_templates(self) -> None:
        m = model()
        for conversation, expected in [
            ("vicuna_v1", "a ASSISTANT: A</s>USER: b"),
            ("llava_hf", "a ASSISTANT: A</s>USER: b"),
            ("mistral_instruct", "a [/INST] A </s>[INST] b"),
            ("SYSTEM USER: {prompt} ASSISTANT:", "a ASSISTANT: A</s>USER: b"),
        ]:
            chat = m.chat([], conversation=conversation)
            answer = candid.Answer("A", None, "eos", 0.0, None, {}, ())
            chat.turns.append(candid.Turn("a", answer))
            self.assertEqual(chat.prompt("b"), expected)
        self.assertEqual(m.chat([], between="|{answer}|", conversation="plain").prompt("a"), "a")
        for more in ({"conversation": "plain"}, {"between": "no place"}, {"between": "{answer}{answer}"}):
            with self.assertRaises(candid.ArgumentError):
                m.chat([], **more)
        with self.assertRaises(TypeError):
            m.chat([], temprature=1)

    def test_streams_and_failures(self) -> None:
        chat = model().chat(ZOO, max_new_tokens=20)
        chat.stream(CAPTION).close()
        self.assertEqual(chat.turns, [])  # it was not said to the end
        stream = chat.stream(DOG)
        text = "".join(stream)
        self.assertEqual([t.answer.text for t in chat.turns], [text])
        self.assertEqual(stream.result, chat.turns[0].answer)
        with self.assertRaises(candid.ContextLengthError):
            chat.ask("again", max_new_tokens=480)
        with self.assertRaises(TypeError):
            chat.ask("again", conversation="plain")
        self.assertEqual(len(chat.turns), 1)
