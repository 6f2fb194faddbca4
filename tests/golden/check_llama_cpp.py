"""Does llama.cpp read what candid writes?  Converts the tiny Hugging Face models with `candid convert`
and compares llama.cpp's logits with transformers' (recorded by make_hf_models.py); quantises a
GGUF file (--gguf, f16, rows of 256 for the K types) to every type and compares with llama.cpp on the unquantised one.

    python3 tests/golden/check_llama_cpp.py --candid build/release/candid --llama-cpp DIR --gguf F16.gguf

DIR: where bench/compare_llama_cpp.py has built llama.cpp (its --llama-cpp).  Needs numpy, safetensors and a C++ compiler.
Not part of the tests: llama.cpp is not a dependency.  What it printed is in docs/exactness.md.
"""
import argparse
import json
import os
import pathlib
import subprocess
import tempfile

from safetensors.numpy import load_file

HERE = pathlib.Path(__file__).resolve().parent


def build(llama_cpp, out):
    tree = next(p.parent.parent for p in llama_cpp.rglob("include/llama.h"))
    libs = [next(llama_cpp.rglob(f"lib{n}.a")) for n in ("llama", "ggml", "ggml-cpu", "ggml-base")]
    driver = out / "llama_cpp_logits"
    subprocess.run([os.environ.get("CXX", "c++"), "-O2", "-std=c++17", HERE / "llama_cpp_logits.cpp", "-o", driver, "-I",
                    tree / "include", "-I", tree / "ggml/include", *libs, "-fopenmp", "-lpthread", "-ldl", "-lm"], check=True)
    return driver


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--candid", required=True)
    ap.add_argument("--llama-cpp", type=pathlib.Path, required=True)
    ap.add_argument("--gguf", type=pathlib.Path)
    args = ap.parse_args()
    cases = json.loads((HERE / "hf/cases.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder)
        driver = build(args.llama_cpp, out)
        for name, info in cases.items():
            recorded = load_file(HERE / "hf" / f"{name}.safetensors")
            last = len(info["cases"]) - 1       # the one without images
            recorded[f"case{last}.prefill_logits"][-1].tofile(out / "expected.f32")
            ids = [str(i) for i in recorded[f"case{last}.input_ids"]]
            clip = ["--mmproj", HERE / "hf" / info["mmproj"]] if info["mmproj"] else []
            for kind in ("f32", "f16", "q8_0"):
                gguf = out / f"{name}-{kind}.gguf"
                subprocess.run([args.candid, "convert", HERE / "hf" / name, gguf, "--type", kind, *clip], check=True,
                               stdout=subprocess.DEVNULL)
                text = subprocess.run([driver, gguf, out / "expected.f32", *ids], check=True, capture_output=True, text=True)
                print(f"{name:13} {kind:5} {text.stdout.strip()}", flush=True)
        if args.gguf:
            reference, ids = out / "gguf.f32", [str(i) for i in range(1, 25)]
            subprocess.run([driver, args.gguf, reference, *ids], check=True, stdout=subprocess.DEVNULL)
            for kind in ("q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_0"):
                gguf = out / f"quantized-{kind}.gguf"
                subprocess.run([args.candid, "quantize", args.gguf, gguf, "--type", kind], check=True,
                               stdout=subprocess.DEVNULL)
                text = subprocess.run([driver, gguf, reference, *ids], check=True, capture_output=True, text=True)
                print(f"{args.gguf.name} {kind:6} {text.stdout.strip()}", flush=True)


if __name__ == "__main__":
    main()
