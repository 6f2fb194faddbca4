#!/usr/bin/env python3
"""Captions an image by several mitigation methods, side by side, and shows where the model looked.

    pip install ./bindings/python
    python3 examples/python_host.py examples/zoo_4.png --word bird --out looked.png
    python3 examples/python_host.py photo.jpg --model llava.gguf --mmproj mmproj.gguf --word dog
"""

import argparse
import json
import textwrap

import candid

CONFIGS = {
    "none": {},
    "vhr": {"vhr": True},
    "pai": {"pai": {"alpha": 0.3}},
    "vcd": {"vcd": True},
    "vhr + pai": {"vhr": True, "pai": {"alpha": 0.2}},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image")
    parser.add_argument("--model", help="a GGUF file or Hugging Face directory; default: the demo model")
    parser.add_argument("--mmproj", help="its image encoder, where that is a file of its own")
    parser.add_argument("--word", help="a word of the plain caption, whose attention is drawn; default: all of it")
    parser.add_argument("--out", default="looked.png", help="the picture (default: %(default)s)")
    args = parser.parse_args()

    with candid.Model.open(args.model, mmproj=args.mmproj) if args.model else candid.Model.demo() as model:
        image = candid.Image(args.image)
        captions = {name: model.caption(image, config, max_new_tokens=128) for name, config in CONFIGS.items()}
        for name, caption in captions.items():
            print(f"{name:10}", textwrap.fill(caption.text, 100, subsequent_indent=" " * 11))
            for method, report in caption.interventions.items():
                print(" " * 10, f"{method}:", json.dumps(report)[:90])

        look = model.look(image, answer=captions["none"])
        with open(args.out, "wb") as file:
            file.write(look.overlay(args.word).png())
        print(f"attention of {args.word!r}" if args.word else "attention of all tokens", "is in", args.out)


if __name__ == "__main__":
    main()
