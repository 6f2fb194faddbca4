#!/usr/bin/env bash
# eval/pope.sh and eval/chair.sh: from images to a report, on the demo scenes and on a small folder that looks like COCO.
. "$SOURCE_DIR/tests/cli/common.sh"
demo=$SOURCE_DIR/models/demo/heldout
pope=$SOURCE_DIR/eval/pope.sh
chair=$SOURCE_DIR/eval/chair.sh
[ "${SANITIZE:-}" = ON ] && { echo "skipped under the sanitizers: the program is tested there by test_eval.sh"; exit 77; }
cd "$work" || exit 1
export CANDID

has_report() { # has_report FOLDER ROW
    grep -q '<html' "$1/report.html" || fail "no $1/report.html"
    grep -q "^| $2 |" "$1/report.md" || fail "no row for $2 in $1/report.md"
}

# ---- demo scenes, without COCO; from any folder; again goes on ----
run 0 "$pope" results/pope --limit 3 --threads 1 --config "$SOURCE_DIR/configs/pai.json"
has_report results/pope greedy
has_report results/pope pai
[ "$(grep -c '"split":"adversarial"' results/pope/greedy.jsonl)" -ge 12 ] || fail "a split is missing"
cp results/pope/greedy.jsonl before.jsonl
run 0 "$pope" results/pope --limit 3 --threads 1 --config "$SOURCE_DIR/configs/pai.json"
cmp before.jsonl results/pope/greedy.jsonl || fail "a finished run was asked again"
run 0 "$chair" deep/folder --limit 3 --threads 1 --max-new-tokens 40
has_report deep/folder greedy
grep -q '"mode":[[:space:]]*"pattern"' deep/folder/greedy.json || fail "another mode than pattern"
run 0 "$pope" planned --limit 3 --plan
out_has "first prompt"

# ---- a folder that looks like COCO ----
mkdir -p coco/val2014 coco/annotations questions
instances='' captions=''
for id in 42 73 74; do
    name=COCO_val2014_$(printf '%012d' $id).jpg
    cp "$demo/images/scene_0000$id.png" "coco/val2014/$name" # decoders go by content, not by name
    printf '%s\n' "$name" >>list
    images="${images:+$images, }{\"id\": $id, \"file_name\": \"$name\"}"
    instances="${instances:+$instances, }{\"id\": $id, \"image_id\": $id, \"category_id\": 18}"
    captions="${captions:+$captions, }{\"id\": $id, \"image_id\": $id, \"caption\": \"A dog beside a clock.\"}"
    n=0
    for split in random popular adversarial; do
        n=$((n + 1))
        printf '{"question_id": %d, "image": "%s", "text": "Is there a dog in the image?", "label": "yes"}\n' $n "$name" \
            >>questions/coco_pope_$split.json
        printf '{"question_id": %d, "image": "%s", "text": "Is there a boat in the image?", "label": "no"}\n' $((n + 9)) "$name" \
            >>questions/coco_pope_$split.json
    done
done
categories='[{"id": 18, "name": "dog"}, {"id": 85, "name": "clock"}]'
printf '{"images": [%s], "annotations": [%s], "categories": %s}\n' "$images" "$instances" "$categories" \
    >coco/annotations/instances_val2014.json
printf '{"images": [%s], "annotations": [%s]}\n' "$images" "$captions" >coco/annotations/captions_val2014.json

run 0 "$pope" pope --coco coco --questions questions --threads 1
has_report pope greedy
[ "$(wc -l <pope/greedy.jsonl)" = 18 ] || fail "expected 18 questions"
grep -qF '"suffix":	"\nAnswer the question using a single word or phrase."' pope/greedy.json || fail "not LLaVA's protocol"
grep -q '"rule":[[:space:]]*"llava"' pope/greedy.json || fail "not LLaVA's rule"
run 0 "$pope" vcd --coco coco --questions questions --threads 1 --protocol "$SOURCE_DIR/eval/protocols/pope-vcd.json" \
    --max-new-tokens 3
has_report vcd sampled

options=(--list list --mode pattern --truth-mode pattern --max-new-tokens 40 --threads 1)
run 0 "$chair" chair --coco coco "${options[@]}"
has_report chair greedy
grep -q '"truth":\["clock","dog"\]\|"truth":\["dog","clock"\]' chair/greedy.scored.jsonl || fail "the truth is not that of both files"
grep -q '"prompt":[[:space:]]*"Please describe this image in detail."' chair/greedy.json || fail "not OPERA's protocol"
run 0 "$CANDID" chair cache --truth coco/annotations/instances_val2014.json \
    --reference coco/annotations/captions_val2014.json --mode pattern -o truth
run 0 "$chair" cached --coco coco --truth-cache truth "${options[@]}"
diff <(grep '"chair_' chair/greedy.json) <(grep '"chair_' cached/greedy.json) || fail "other scores with the cache"

# ---- an image that fails is told of, the others are reported ----
head -c 900 "coco/val2014/COCO_val2014_000000000073.jpg" >cut && mv cut "coco/val2014/COCO_val2014_000000000073.jpg"
run 1 "$pope" damaged --coco coco --questions questions --threads 1
err_has "COCO_val2014_000000000073.jpg"
[ -e damaged/report.html ] || fail "no report of the images that were done"

# ---- refusals ----
run 0 "$pope" --help; out_has "--questions DIR"
run 0 "$chair" --help; out_has "import-tagger"
run 2 "$pope"; err_has "Usage: eval/pope.sh OUT"
run 2 "$chair" --coco coco; err_has "Usage: eval/chair.sh OUT"
run 2 "$pope" x --coco coco; err_has "--coco needs --questions"
run 2 "$pope" x --questions questions; err_has "needs --coco"
run 2 "$pope" x --coco; err_has "--coco needs a value"
run 2 "$chair" x --frobnicate; err_has "frobnicate"
XDG_DATA_HOME=$work HOME=$work run 1 "$chair" untagged --coco coco --list list
err_has "candid chair import-tagger"
[ ! -e untagged/report.html ] || fail "a report of nothing"
CANDID='' PATH=/usr/bin:/bin run 0 bash -c 'mkdir copy bin && cp -r "$0" copy/eval && ln -s "$1" bin/candid &&
    PATH=$PWD/bin:$PATH copy/eval/pope.sh path --coco coco --questions questions --limit 1 --threads 1' \
    "$SOURCE_DIR/eval" "$CANDID"
