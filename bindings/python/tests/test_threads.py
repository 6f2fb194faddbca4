"""One model, many threads; Ctrl-C; logs; ends of processes."""

from __future__ import annotations

import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import candid

from .common import DOG, PARK, STREET, ZOO, Case, model, run_python


class Parallel(Case):
    def test_eight_threads(self) -> None:
        m = model()
        work = [(image, config) for image in (ZOO, PARK, STREET) for config in (None, {"vhr": True})] * 4
        expected = {(image, str(config)): m.caption(image, config) for image, config in work}
        shared = {image: candid.Image(image) for image in (ZOO, PARK, STREET)}  # read by all at once
        barrier = threading.Barrier(8)

        def one(i: int) -> list[candid.Answer]:
            barrier.wait()
            return [m.caption(shared[image], config) for image, config in work[3 * i : 3 * i + 3]]

        with ThreadPoolExecutor(8) as pool:
            answers = [answer for some in pool.map(one, range(8)) for answer in some]
        self.assertEqual(len(answers), len(work))
        for (image, config), answer in zip(work, answers):
            same = expected[image, str(config)]
            self.assertEqual(answer, same)
            self.assertEqual(answer.stats.fingerprint, same.stats.fingerprint)
        self.assertLessEqual(len(m._engine._workers), 9)

    def test_the_interpreter_runs_meanwhile(self) -> None:
        """Calls of two threads are under way at once, and this thread's Python too."""
        with candid.Model.demo(precision="exact", threads=1) as m:
            streams = [m.stream([ZOO, PARK, STREET], candid.CAPTION_PROMPT) for _ in range(2)]
            jobs = [stream._job for stream in streams]
            turns = 0
            while not all(job.done.is_set() for job in jobs):
                busy = [worker for worker in m._engine._workers if worker.job is not None]
                turns += len(busy) == 2
            self.assertGreater(turns, 2)
            self.assertEqual(streams[0].result, streams[1].result)


class Interrupts(Case):
    def test_ctrl_c(self) -> None:
        """SIGINT in a long call: KeyboardInterrupt soon, nothing on stderr, and the model works on."""
        out = run_python(
            f"""
            import os, signal, threading, time
            import candid
            m = candid.Model.demo(precision="exact", threads=1)
            first = m.ask({str(ZOO)!r}, {DOG!r})
            calls = [
                lambda: m.ask([{str(ZOO)!r}] * 5, "a", max_new_tokens=100, temperature=5),
                lambda: m.ask_many([({str(ZOO)!r}, "What is there?" * i) for i in range(1, 30)], temperature=5),
                lambda: list(m.stream([{str(ZOO)!r}] * 5, "a", max_new_tokens=100, temperature=5)),
                lambda: m.look([{str(ZOO)!r}][0], max_new_tokens=400, temperature=5),
            ]
            for call in calls:
                timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
                timer.start()
                try:
                    while True:
                        call()
                except KeyboardInterrupt:
                    print("interrupted")
                timer.join()
                busy = [w for w in m._engine._workers if w.job is not None]
                for w in busy:
                    w.job.done.wait(30)
                assert m.ask({str(ZOO)!r}, {DOG!r}) == first
            """
        ).stdout
        self.assertEqual(out.split(), ["interrupted"] * 4)

    def test_other_signals(self) -> None:
        out = run_python(
            f"""
            import os, signal, threading
            import candid
            seen = []
            signal.signal(signal.SIGUSR1, lambda *_: seen.append("handled"))
            m = candid.Model.demo(threads=1)
            timer = threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGUSR1))
            timer.start()
            while not seen:
                text = m.caption({str(ZOO)!r}).text
            print(seen, text == m.caption({str(ZOO)!r}).text)
            """
        ).stdout
        self.assertEqual(out.strip(), "['handled'] True")

    def test_the_process_ends_with_calls_under_way(self) -> None:
        run_python(
            f"""
            import candid
            m = candid.Model.demo(precision="exact", threads=1)
            stream = m.stream([{str(ZOO)!r}] * 5, "a", max_new_tokens=100, temperature=5)
            other = candid.Model.demo()
            other.caption({str(ZOO)!r}, max_new_tokens=2)
            """
        )

    def test_close_cancels(self) -> None:
        m = candid.Model.demo(precision="exact", threads=1)
        raised = []

        def call() -> None:
            try:
                while True:
                    m.ask([ZOO, PARK, STREET], "a", max_new_tokens=100, temperature=5)
            except candid.CandidError as e:
                raised.append(type(e))

        threads = [threading.Thread(target=call) for _ in range(3)]
        for thread in threads:
            thread.start()
        while not m._engine._workers:
            time.sleep(0.001)
        m.close()
        m.close()
        for thread in threads:
            thread.join()
        self.assertEqual(len(raised), 3)
        self.assertTrue(set(raised) <= {candid.CancelledError, candid.ArgumentError}, raised)

    def test_forked(self) -> None:
        m = model()
        m.caption(ZOO, max_new_tokens=1)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                m.caption(ZOO)
            except candid.ArgumentError as e:
                code = 0 if "forked" in str(e) else 2
            finally:
                os._exit(code)
        self.assertEqual(os.waitpid(child, 0)[1], 0)


class Logs(Case):
    def test_function_and_logger(self) -> None:
        lines: list[tuple[str, str]] = []
        candid.Model.demo(log=lambda level, message: lines.append((level, message))).close()
        self.assertEqual([level for level, message in lines if "6 layers" in message], ["info"])
        with self.assertLogs("candid.test", logging.DEBUG) as seen:
            candid.Model.demo(log=logging.getLogger("candid.test")).close()
        self.assertTrue(any("6 layers" in line for line in seen.output))

    def test_what_it_raises_surfaces(self) -> None:
        def fail(level: str, message: str) -> None:
            raise ZeroDivisionError(message)

        with self.assertRaisesRegex(ZeroDivisionError, "6 layers"):
            candid.Model.demo(log=fail)
        armed = False

        def later(level: str, message: str) -> None:
            if armed:
                raise ZeroDivisionError(message)

        with candid.Model.demo(log=later, threads=1) as m:
            m.caption(ZOO, max_new_tokens=2)  # the thread and its context are there
            armed = True
            with self.assertRaisesRegex(ZeroDivisionError, "boosts multiply"):
                m.caption(ZOO, {"pai": True, "paint": True}, max_new_tokens=2)  # which is worth a warning
            with self.assertRaises(candid.ArgumentError):
                m.caption(ZOO, {"pai": True, "paint": True}, temperature=-1, max_new_tokens=2)
            armed = False
            m.caption(ZOO, max_new_tokens=2)  # nothing waits to be raised
