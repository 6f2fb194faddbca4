#!/usr/bin/env bash
# POPE from images to a report.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() { cat <<'TEXT'
Usage: eval/pope.sh OUT [--coco DIR --questions DIR] [options of candid eval]

Asks the questions of POPE's three splits (random, popular, adversarial), scores the answers and writes OUT/report.html
and OUT/report.md. The baseline, greedy decoding, runs first, then each --config. Called again,
the script goes on where it ended.

  --coco DIR       COCO 2014, the images in DIR/val2014
  --questions DIR  output/coco of github.com/RUCAIBox/POPE, with coco_pope_random.json and the two others

The protocol is that of LLaVA, eval/protocols/pope-llava.json, unless --protocol names another. Without --coco the 200
scenes of models/demo/heldout are asked about as they are, by the embedded model where --model names no other.
All other options go to candid eval: --model, --mmproj, --config, --limit, --threads; see candid eval --help.
The program is $CANDID, else build/release/candid beside the scripts, else candid in PATH.
TEXT
}
die() { printf 'pope.sh: error: %s\n' "$*" >&2; exit 2; }

coco='' questions='' protocol='' parts='' options=()
case ${1:--} in
    -h | --help) usage && exit ;;
    -*) usage >&2 && exit 2 ;;
esac
out=$1 && shift
while [ $# -gt 0 ]; do
    case $1 in
        --coco | --questions | --protocol)
            [ $# -ge 2 ] || die "$1 needs a value"
            declare "${1#--}=$2" && shift 2 ;;
        *)
            case $1 in --plan | --shard | --shard=*) parts=yes ;; esac # nothing to report yet
            options+=("$1") && shift ;;
    esac
done

if [ -n "$coco" ]; then
    [ -n "$questions" ] || die "--coco needs --questions DIR, output/coco of github.com/RUCAIBox/POPE"
    images=$coco/val2014 form=$questions/coco_pope_%s.json
    protocol=${protocol:-$root/eval/protocols/pope-llava.json}
else
    [ -z "$questions" ] || die "--questions needs --coco DIR, the folder that holds val2014"
    images=$root/models/demo/heldout/images form=$root/models/demo/heldout/questions_%s.jsonl
fi
for split in random popular adversarial; do
    options+=(--questions "${form//%s/$split}")
done

candid=${CANDID:-$root/build/release/candid}
[ -n "${CANDID:-}" ] || [ -x "$candid" ] || candid=candid
code=0
"$candid" eval pope --images "$images" --out "$out" --resume ${protocol:+--protocol "$protocol"} "${options[@]}" || code=$?
[ $code -le 1 ] && [ -z "$parts" ] && compgen -G "$out/*.json" >/dev/null || exit $code # 1: some images failed
"$candid" report "$out" --out "$out/report.html" --markdown "$out/report.md"
exit $code
