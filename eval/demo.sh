#!/usr/bin/env bash
# The demo benchmark: POPE and CHAIR of the embedded toy model with and without mitigation.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
candid=${CANDID:-$here/build/release/candid}

if [ $# -lt 1 ] || [ "$1" = --help ]; then
    cat <<TEXT
Usage: eval/demo.sh OUT [SET]

Runs the demo model on a set of scenes (default: the 200 of models/demo/heldout) into OUT, which holds four comparisons
then: pope, chair, and both of the model trained with concentric causal attention (pope-cca, chair-cca). Goes on where an
earlier call ended. The 500 scenes of docs/results-demo.md:

  python3 tools/demo/scenes.py --out SET --n 500 && python3 tools/demo/pope.py SET
TEXT
    [ "${1:-}" = --help ] && exit 0 || exit 2
fi
out=$1
set_folder=${2:-$here/models/demo/heldout}
cca=(--model "$here/models/demo-cca/candid-demo-cca.gguf")
configs=()
for name in var-demo vhr opera vcd damro pai vista hgai stack-vhr-pai; do
    configs+=(--config "$here/configs/$name.json")
done
# Ten tokens, as OPERA asks POPE: a search goes on while another answer could still win.
pope=(pope --images "$set_folder/images" --resume --max-new-tokens 10)
for split in random popular adversarial; do
    pope+=(--questions "$set_folder/questions_$split.jsonl")
done
chair=(chair --images "$set_folder/images" --resume --truth "$set_folder/instances.json" --mode pattern)

mkdir -p "$out"
"$candid" eval "${pope[@]}" --out "$out/pope" --also beam-5,sample-t1 "${configs[@]}"
"$candid" eval "${chair[@]}" --out "$out/chair" --also beam-5,sample-t1 "${configs[@]}"
"$candid" eval "${pope[@]}" "${cca[@]}" --out "$out/pope-cca" --config "$here/configs/cca.json"
"$candid" eval "${chair[@]}" "${cca[@]}" --out "$out/chair-cca" --config "$here/configs/cca.json"
for part in pope chair pope-cca chair-cca; do
    "$candid" report "$out/$part" --out "$out/$part.html" --markdown "$out/$part.md" --csv "$out/$part.csv" \
        --title "Demo benchmark: $part"
done
