#!/usr/bin/env bash
# Every `candid …` command of README and docs runs as written, in a folder with the files it names.
. "$SOURCE_DIR/tests/cli/common.sh"
[ "$SANITIZE" = ON ] && { echo "these commands have tests of their own under the sanitizers"; exit 77; }
mkdir "$work/play" "$work/bin" "$work/play/photos"
# On one core: threads that wait for each other are slow beside other tests.
core=$(taskset -pc $$ | sed 's/.*: //; s/[-,].*//')
printf '#!/bin/sh\nexec taskset -c %s "%s" "$@"\n' "$core" "$CANDID" >"$work/bin/candid"
chmod +x "$work/bin/candid"
image=$(ls "$SOURCE_DIR"/examples/*.png | head -1)
cp "$image" "$work/play/photo.jpg" # decoders go by content, not by name
cp "$image" "$work/play/photos/one.png"
cp "$demo_model" "$work/play/llava.gguf"
cp "$demo_model" "$work/play/mmproj.gguf"
ln -s "$SOURCE_DIR/tests/golden/hf/llava15_mha" "$work/play/llava-1.5-7b-hf"
ln -s "$SOURCE_DIR/configs" "$SOURCE_DIR/models" "$SOURCE_DIR/examples" "$SOURCE_DIR/eval" "$work/play/"
cd "$work/play" || exit 1
# Benchmarks, from the demo set: COCO, POPE, MME and AMBER as their folders look.
demo=$SOURCE_DIR/models/demo/heldout
mkdir -p coco/annotations POPE/output/coco questions MME/existence AMBER/data/query AMBER/image
ln -s "$demo/images" coco/val2014
ln -s "$demo/instances.json" coco/annotations/instances_val2014.json
for split in random popular adversarial; do
    head -18 "$demo/questions_$split.jsonl" >POPE/output/coco/coco_pope_$split.json
done
cp "$image" MME/existence/0001.png
printf 'Is there a clock? Please answer yes or no.\tYes\nIs there a tie? Please answer yes or no.\tNo\n' >MME/existence/0001.txt
cp "$SOURCE_DIR"/tests/data/amber/{annotations.json,relation.json,safe_words.txt} AMBER/data/
cp "$image" AMBER/image/AMBER_1.jpg
printf '[{"id": 1, "image": "AMBER_1.jpg", "query": "Describe this image."}]\n' >AMBER/data/query/query_all.json
documents=("$SOURCE_DIR/README.md" "$SOURCE_DIR"/docs/*.md) commands='^candid ' least=40
count=0
while IFS= read -r command; do
    PATH="$work/bin:$PATH" bash -c "$command" >"$work/out" 2>"$work/err" </dev/null || fail "in the documentation: $command"
    count=$((count + 1))
done < <(awk '/^```sh/ {inside = 1; next} /^```/ {inside = 0} inside' "${documents[@]}" | grep "$commands")
[ $count -ge $least ] || fail "only $count commands found"
# The two commands of the first screen exist (this very run may be inside ./dev test).
grep -q '^\./dev demo' "$SOURCE_DIR/README.md" && grep -q '^\./dev test' "$SOURCE_DIR/README.md" || fail "the two commands"
"$SOURCE_DIR/dev" --help >/dev/null || fail "./dev --help"
