#!/usr/bin/env python3
"""Time transformers on a random LLaVA-1.5-7B-shaped model on the GPU: sdpa attention, fp16.

Prints one JSON object: prefill milliseconds of a prompt of 35 + 576 + 64 tokens and decode tokens per second, medians.
Needs torch with CUDA and transformers; exits with 77 where they or the GPU are missing.
"""
import argparse
import json
import statistics
import sys
import time

try:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
except ImportError as missing:
    print(f"not run: {missing}", file=sys.stderr)
    sys.exit(77)


def timed(run) -> float:
    """Milliseconds of one call, the queue empty before and after."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--prompt", type=int, default=675, help="tokens")
    parser.add_argument("--decode", type=int, default=64, help="tokens")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("not run: torch sees no GPU", file=sys.stderr)
        sys.exit(77)
    config = LlamaConfig(hidden_size=4096, intermediate_size=11008, num_hidden_layers=options.layers,
                         num_attention_heads=32, vocab_size=32064, attn_implementation="sdpa")
    torch.manual_seed(0)
    with torch.device("cuda"):
        torch.set_default_dtype(torch.float16)
        model = LlamaForCausalLM(config).eval()
        prompt = torch.randint(3, 32000, (1, options.prompt))
    prefill, decode = [], []
    with torch.inference_mode():
        for _ in range(options.rounds + 1):  # the first warms up
            out = {}

            def read() -> None:
                out["result"] = model(prompt, use_cache=True)

            def generate() -> None:
                result = out["result"]
                for _ in range(options.decode):
                    token = result.logits[:, -1:].argmax(-1)
                    result = model(token, past_key_values=result.past_key_values, use_cache=True)

            prefill.append(timed(read))
            decode.append(timed(generate))
    print(json.dumps({"prefill_ms": statistics.median(prefill[1:]),
                      "decode_tok_s": options.decode / statistics.median(decode[1:]) * 1e3,
                      "torch": torch.__version__, "gpu": torch.cuda.get_device_name()}))


if __name__ == "__main__":
    main()
