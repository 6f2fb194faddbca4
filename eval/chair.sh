#!/usr/bin/env bash
# CHAIR from images to a report.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() { cat <<'TEXT'
Usage: eval/chair.sh OUT [--coco DIR] [options of candid eval]

Has the images described, looks for objects that are not there and writes OUT/report.html and OUT/report.md. The
baseline, greedy decoding, runs first, then each --config. Called again, the script goes on where it ended.

  --coco DIR       COCO 2014: images in DIR/val2014, instances_val2014.json and captions_val2014.json in
                   DIR/annotations; --truth, --reference or --truth-cache take their place

The protocol is that of OPERA, eval/protocols/chair-opera-512.json, unless --protocol names another. It needs NLTK's
tagger (candid chair import-tagger). Without --coco the 200 scenes of models/demo/heldout are described by the embedded
model. All other options go to candid eval: --model, --mmproj, --config, --limit, --threads; see candid eval --help.
The program is $CANDID, else build/release/candid beside the scripts, else candid in PATH.
TEXT
}
die() { printf 'chair.sh: error: %s\n' "$*" >&2; exit 2; }

coco='' protocol='' own_truth='' parts='' options=()
case ${1:--} in
    -h | --help) usage && exit ;;
    -*) usage >&2 && exit 2 ;;
esac
out=$1 && shift
while [ $# -gt 0 ]; do
    case $1 in
        --coco | --protocol)
            [ $# -ge 2 ] || die "$1 needs a value"
            declare "${1#--}=$2" && shift 2 ;;
        *)
            case $1 in
                --plan | --shard | --shard=*) parts=yes ;; # nothing to report yet
                --truth | --truth=* | --reference | --reference=* | --truth-cache*) own_truth=yes ;;
            esac
            options+=("$1") && shift ;;
    esac
done

demo=$root/models/demo/heldout
first=(--mode pattern) images=$demo/images truth=(--truth "$demo/instances.json")
if [ -n "$coco" ]; then
    first=() images=$coco/val2014 protocol=${protocol:-$root/eval/protocols/chair-opera-512.json}
    truth=(--truth "$coco/annotations/instances_val2014.json" --reference "$coco/annotations/captions_val2014.json")
fi
[ -z "$own_truth" ] || truth=()

candid=${CANDID:-$root/build/release/candid}
[ -n "${CANDID:-}" ] || [ -x "$candid" ] || candid=candid
code=0
"$candid" eval chair --images "$images" --out "$out" --resume ${protocol:+--protocol "$protocol"} "${first[@]}" \
    "${truth[@]}" "${options[@]}" || code=$?
[ $code -le 1 ] && [ -z "$parts" ] && compgen -G "$out/*.json" >/dev/null || exit $code # 1: some images failed
"$candid" report "$out" --out "$out/report.html" --markdown "$out/report.md"
exit $code
