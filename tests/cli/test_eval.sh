#!/usr/bin/env bash
# candid eval end to end on held-out scenes: lean, resumable, sharded, reproducible.
. "$SOURCE_DIR/tests/cli/common.sh"
set_folder=$SOURCE_DIR/models/demo/heldout
splits=(--questions "$set_folder/questions_random.jsonl" --questions "$set_folder/questions_popular.jsonl"
    --questions "$set_folder/questions_adversarial.jsonl")
cd "$work" || exit 1
# Under the sanitizers the same on fewer scenes.
scenes=20 few=10 pair=2 shard_counts="2 3 7"
[ "$SANITIZE" = ON ] && scenes=4 few=2 pair=1 shard_counts=3

# eval_pope OUT OPTIONS…: POPE on some scenes.
eval_pope() {
    local out=$1
    shift
    "$CANDID" eval pope --images "$set_folder/images" "${splits[@]}" --limit "$scenes" --threads 1 --out "$out" "$@"
}

value() { grep -o "\"$2\":[^,}]*" "$1" | head -1 | sed 's/.*:[[:space:]]*//'; }
# The same run twice: fingerprint of all logits, and everything that was scored.
same_run() {
    [ "$(value "$1" fingerprint)" = "$(value "$2" fingerprint)" ] || fail "$1 and $2: other logits"
    diff <(sed -n '/"scores":/,$p' "$1") <(sed -n '/"scores":/,$p' "$2") >/dev/null || fail "$1 and $2: other scores"
}
# Every question has exactly one line.
each_once() {
    local all once
    all=$(wc -l <"$1")
    once=$(grep -o '"index":[0-9]*' "$1" | sort -u | wc -l)
    [ "$all" = "$2" ] && [ "$once" = "$2" ] || fail "$1: $all lines, $once questions, expected $2"
}

# ---- a whole run: baseline and a method, scores, report ----
run 0 eval_pope deep/er/whole --limit 1
run 0 eval_pope whole --config "$SOURCE_DIR/configs/pai.json" --rule all
out_has "pope greedy"
out_has "pope pai"
n=$(value whole/greedy.json questions)
[ "$n" -ge $((15 * scenes)) ] || fail "only $n questions"
each_once whole/greedy.jsonl "$n"
each_once whole/greedy.scored.jsonl "$n"
[ "$(value whole/greedy.json images_encoded)" = "$scenes" ] || fail "an image was encoded more than once"
read_=$(value whole/greedy.json prefilled_tokens)
alone=$(value whole/greedy.json prompt_tokens)
[ $((100 * read_)) -le $((15 * alone)) ] || fail "$read_ of $alone prompt tokens read: more than 15 %"
for key in version commit sha256 precision preprocess jpeg_decoder seed known_as fingerprint; do
    grep -q "\"$key\"" whole/greedy.json || fail "the summary lacks $key"
done
run 0 "$CANDID" report whole --out page.html --markdown table.md --csv table.csv
grep -q "| pai |" table.md || fail "no row for pai"

# Scoring the file again gives the same numbers.
run 0 "$CANDID" score pope whole/greedy.jsonl --json again.json
[ "$(value again.json accuracy)" = "$(value whole/greedy.json accuracy)" ] || fail "scored otherwise"

# ---- one question at a time gives the same answers and logits ----
eval_pope exact --precision exact --limit "$pair" >/dev/null 2>&1 || fail "exact run"
eval_pope alone --precision exact --limit "$pair" --one-by-one >/dev/null 2>&1 || fail "exact run, one by one"
[ "$(value alone/greedy.json images_encoded)" = "$(value alone/greedy.json questions)" ] || fail "--one-by-one shares"
[ "$(value alone/greedy.json prefilled_tokens)" = "$(value exact/greedy.json prompt_tokens)" ] || fail "tokens alone"
same_run exact/greedy.json alone/greedy.json
while IFS=$'\t' read -r image question answer fingerprint; do
    run 0 "$CANDID" ask --precision exact --threads 1 -q "$question" "$set_folder/images/$image"
    out_has "$answer"
    err_has "fingerprint $fingerprint"
done < <(sed -n 's/.*"image":"\([^"]*\)","question":"\([^"]*\)".*"answer":"\([^"]*\)".*"fingerprint":"\([^"]*\)".*/\1\t\2\t\3\t\4/p' \
    exact/greedy.jsonl | sort -u | sed -n '1p;5p;9p;13p;17p;21p')

# ---- kill -9 and --resume: nothing lost, nothing twice ----
run 0 eval_pope calm
for delay in 0.05 0.1 0.2 0.15 0.3; do
    (timeout -s KILL "$delay" "$CANDID" eval pope --images "$set_folder/images" "${splits[@]}" --limit "$scenes" --threads 1 \
        --out killed --resume; true) >/dev/null 2>&1
    printf '{"run":"torn' >>killed/greedy.jsonl 2>/dev/null # what a write cut short leaves
done
run 0 eval_pope killed --resume
each_once killed/greedy.jsonl "$n"
same_run calm/greedy.json killed/greedy.json
run 4 eval_pope killed
err_has "--resume"
run 4 eval_pope killed --resume --seed 3
err_has "another model, configuration, settings or questions"

# ---- shards: any number, any order, the same as one run ----
for of in $shard_counts; do
    for ((i = of; i >= 1; i--)); do
        run 0 eval_pope "shards$of" --shard "$i/$of"
    done
    run 0 "$CANDID" eval merge "shards$of" --out "shards$of"
    each_once "shards$of/greedy.jsonl" "$n"
    same_run calm/greedy.json "shards$of/greedy.json"
done
part=shards3/greedy.shard-2-of-3
cp "$part.jsonl" keep.jsonl
sed '$d' keep.jsonl >"$part.jsonl"
run 1 "$CANDID" eval merge shards3
err_has "is in none of the shards"
cat keep.jsonl <(head -1 shards3/greedy.shard-1-of-3.jsonl) >"$part.jsonl"
run 1 "$CANDID" eval merge shards3
err_has "its question has an answer on an earlier line"
cp keep.jsonl "$part.jsonl"
mv "$part.json" keep.json
run 1 "$CANDID" eval merge shards3
err_has "shard 2 of 3 is missing"
rm "$part.jsonl"
run 0 eval_pope shards3 --shard 2/3 --max-new-tokens 1
run 1 "$CANDID" eval merge shards3
err_has "comes from another run"

# ---- reproduce ----
run 0 "$CANDID" eval --reproduce whole/pai.json --threads 1
out_has "$n of $n answers are the same, $n of them from the same logits"
sed '5s/"answer":"[A-Za-z]*"/"answer":"Perhaps"/' whole/pai.jsonl >other.jsonl && mv other.jsonl whole/pai.jsonl
rm -r whole/pai.reproduced
run 1 "$CANDID" eval --reproduce whole/pai.json --threads 1
out_has "was \"Perhaps\""
out_has "$((n - 1)) of $n answers are the same"

# ---- files that a configuration names ----
mkdir tables
run 0 "$CANDID" calibrate sinks --threads 1 --out tables/sinks.json "$set_folder/images/scene_000002.png"
echo '{"var": {"table": "sinks.json", "rho": 1, "summ": 0}}' >tables/var.json
eval_var() { "$CANDID" eval caption --images "$set_folder/images" --limit 3 --threads 1 --out var --config tables/var.json \
    --no-baseline "$@"; }
run 0 eval_var
run 0 "$CANDID" eval --reproduce var/var.json
out_has "3 of 3 answers are the same"
run 0 eval_var --resume
run 4 eval_var --resume --ctx 300 # an answer may not fit
err_has "another model, configuration, settings or questions"
sed 's/"sink_tau":.*,/"sink_tau": 1.5,/' tables/sinks.json >other.json && mv other.json tables/sinks.json
run 4 eval_var --resume
err_has "another model, configuration, settings or questions"
rm -r var tables/sinks.json
run 1 eval_var
err_has "sinks.json: cannot be opened"
[ ! -s var/var.jsonl ] || fail "every question failed for want of a table"

# ---- a question that cannot be asked beside one that can ----
printf '%s\n' '{"question_id": 1, "image": "scene_000002.png", "text": "How many dogs are in the image?"}' \
    '{"question_id": 2, "image": "scene_000002.png", "text": "<image> or <image>?"}' >odd.jsonl
run 1 "$CANDID" eval vqa --images "$set_folder/images" --questions odd.jsonl --threads 1 --out odd
[ "$(grep -c '"answer"' odd/greedy.jsonl) $(grep -c '"error"' odd/greedy.jsonl)" = "1 1" ] || fail "one question ended the run"
err_has "places"
run 1 "$CANDID" eval vqa --images "$set_folder/images" --questions odd.jsonl --threads 1 --out odd --resume

# ---- images that are missing or damaged ----
mkdir broken
cp "$set_folder"/images/scene_00000[0-5].png broken/
head -c 900 broken/scene_000003.png >cut.png && mv cut.png broken/scene_000003.png
rm broken/scene_000001.png
run 1 "$CANDID" eval pope --images broken "${splits[@]}" --limit 6 --threads 1 --out damaged
err_has "scene_000003.png"
err_has "scene_000001.png"
[ "$(grep -c '"error"' damaged/greedy.jsonl)" = "$(value damaged/greedy.json failed)" ] || fail "failures are not counted"
grep '"scene_000001.png"' damaged/greedy.jsonl | grep -qv '"error"' && fail "a missing image has an answer"
[ "$(value damaged/greedy.json images_encoded)" = 4 ] || fail "the other images were not done"
for i in 1 2; do # shards with failures, joined, end as the whole run does
    "$CANDID" eval pope --images broken "${splits[@]}" --limit 6 --threads 1 --out parts --shard "$i/2" >/dev/null 2>&1
done
run 1 "$CANDID" eval merge parts
same_run damaged/greedy.json parts/greedy.json
run 1 "$CANDID" eval pope --images broken "${splits[@]}" --limit 6 --threads 1 --out strict --strict
err_has "scene_000001.png"
grep -q '"scene_000002.png"' strict/greedy.jsonl && fail "--strict went on"
run 2 "$CANDID" eval pope --images "$SOURCE_DIR/docs" "${splits[@]}" --out nothing
err_has "holds none of the 200 images asked about"

# ---- a full disk: an error, and a file to go on with ----
(trap '' XFSZ; ulimit -f 8; "$CANDID" eval pope --images "$set_folder/images" "${splits[@]}" --limit "$scenes" --threads 1 \
    --out full >"$work/out" 2>"$work/err")
[ $? = 4 ] || fail "a full disk should end with 4"
err_has "cannot write"
[ -z "$(tail -c 1 full/greedy.jsonl | tr -d '\n')" ] || fail "the file ends within a line"
run 0 eval_pope full --resume
each_once full/greedy.jsonl "$n"
same_run calm/greedy.json full/greedy.json

# ---- CHAIR, captions, open questions ----
run 0 "$CANDID" eval chair --images "$set_folder/images" --truth "$set_folder/instances.json" --mode pattern --limit "$few" \
    --threads 1 --out captions --set decode.beams=2 --name beam-2
out_has "chair beam-2"
out_has "CHAIR_i"
run 0 "$CANDID" score chair captions/greedy.jsonl --truth "$set_folder/instances.json" --mode pattern --json chair.json
[ "$(value chair.json chair_i)" = "$(value captions/greedy.json chair_i)" ] || fail "CHAIR scored otherwise"
run 0 "$CANDID" eval caption --images "$set_folder/images" --sample 3 --sample-seed 7 --threads 1 --out some
[ "$(wc -l <some/greedy.jsonl)" = 3 ] || fail "--sample 3"
printf '%s\n' '{"question_id": 7, "image": "scene_000002.png", "text": "How many dogs are in the image?"}' >vqa.jsonl
run 0 "$CANDID" eval vqa --images "$set_folder/images" --questions vqa.jsonl --threads 1 --out open
run 0 "$CANDID" eval export open/greedy.jsonl --format llava
out_has '{"question_id":7,"prompt":"How many dogs are in the image?","text":"'
sed 's/"question_id": 7/"question_id": "007"/' vqa.jsonl >text_id.jsonl
run 0 "$CANDID" eval vqa --images "$set_folder/images" --questions text_id.jsonl --threads 1 --out text_id
run 0 "$CANDID" eval export text_id/greedy.jsonl --format llava
out_has '{"question_id":"007",'
printf 'scene_000002.png\r\n\r\nscene_000003.png\r\n' >names.txt
run 0 "$CANDID" eval caption --images "$set_folder/images" --list names.txt --threads 1 --out listed
[ "$(wc -l <listed/greedy.jsonl)" = 2 ] || fail "an empty line of a list was taken for an image"
echo '{"options": {"one-by-one": false, "limit": 1}}' >protocol.json
run 0 "$CANDID" eval vqa --images "$set_folder/images" --questions vqa.jsonl --threads 1 --out flag --protocol protocol.json
[ "$(value flag/greedy.json one_by_one)" = false ] || fail "a flag that a protocol sets to false was on"

# ---- MME and AMBER ----
mkdir -p mme/existence
for k in 1 2; do
    cp "$set_folder/images/scene_00000$k.png" "mme/existence/000$k.png"
    printf 'Is there a dog in the image?\tYes\nIs there a cat in the image?\tNo\n' >"mme/existence/000$k.txt"
done
run 0 "$CANDID" eval mme --images mme --threads 1 --out mme-run
out_has "existence"
[ "$(value mme-run/greedy.json images_encoded)" = 2 ] || fail "MME's two questions do not share their image"
cat >amber.json <<'EOF'
[{"id": 1, "image": "scene_000001.png", "query": "Describe this image."},
 {"id": 1005, "image": "scene_000001.png", "query": "Is there a dog in the image?"}]
EOF
run 0 env XDG_DATA_HOME="$work" "$CANDID" eval amber --images "$set_folder/images" --questions amber.json --threads 1 \
    --amber-data "$SOURCE_DIR/tests/data/amber" --out amber-run
out_has "AMBER score"
out_has "approximate"
[ "$(value amber-run/greedy.json images_encoded)" = 1 ] || fail "AMBER's questions do not share their image"

# ---- the official program's form: its rule, applied here, gives our counts ----
run 0 "$CANDID" eval export calm/greedy.jsonl --format pope --split random -o answers.jsonl
head -"$(wc -l <answers.jsonl)" "$set_folder/questions_random.jsonl" | sed 's/.*"label": *"\([a-z]*\)".*/\1/' >labels
sed 's/.*"answer":"\([^"]*\)".*/\1/' answers.jsonl | sed 's/\..*//; s/,//g' |
    awk '{no = 0; for (i = 1; i <= NF; i++) no = no || $i == "No" || $i == "not" || $i == "no"; print no ? "no" : "yes"}' >read
tp=$(paste -d' ' labels read | grep -c '^yes yes$')
sed -n '/"random"/,/"tp"/p' calm/greedy.json | grep -q "\"tp\":[[:space:]]*$tp," || fail "the official rule counts $tp true positives"

# ---- the plan of the standard protocol: 500 images, three splits of six questions ----
awk 'BEGIN {
    split("person chair car dog cat table cup bottle book bird truck bench clock horse sheep cow pizza cake bed sink", w, " ");
    for (i = 1; i <= 500; i++) {
        line = sprintf("{\"image\": \"COCO_val2014_%012d.jpg\", \"objects\": [", i);
        for (k = 0; k < 4; k++) line = line (k ? ", " : "") "\"" w[(i * 7 + k * (1 + i % 3)) % 20 + 1] "\"";
        print line "]}"
    }
}' >objects.jsonl
run 0 "$CANDID" pope build --objects objects.jsonl --split all --seed 1 -o built
run 0 "$CANDID" eval pope --images . --questions built/pope_random.jsonl --questions built/pope_popular.jsonl \
    --questions built/pope_adversarial.jsonl --protocol "$SOURCE_DIR/eval/protocols/pope-llava.json" --plan
out_has "18.0 times fewer"
awk '/prompt tokens read/ {exit !($6 >= 10)}' "$work/out" || fail "fewer than ten times fewer tokens: $(cat "$work/out")"

# ---- refusals before any work ----
run 2 "$CANDID" eval
run 2 "$CANDID" eval sudoku --images . --out x
err_has "unknown benchmark"
run 2 "$CANDID" eval pope --images "$set_folder/images" --out x
err_has "expected --questions"
run 2 eval_pope x --rule fuzzy
err_has "no answer rule"
run 2 eval_pope x --shard 3/2
err_has "--shard"
run 2 eval_pope x --config "$SOURCE_DIR/configs/pai.json" --config "$SOURCE_DIR/configs/pai.json"
err_has "two runs would be called \"pai\""
run 2 eval_pope x --protocol protocol.json --protocol protocol.json
err_has "--protocol can be given once"
echo '{}' >pai.scored.json # its results would be the verdicts of pai
run 2 eval_pope x --config "$SOURCE_DIR/configs/pai.json" --config pai.scored.json
err_has "\"pai.scored\" cannot name a run"
run 1 "$CANDID" eval chair --images "$set_folder/images" --truth "$set_folder/questions_random.jsonl" --out x
run 1 "$CANDID" eval chair --images "$set_folder/images" --truth "$set_folder/instances.json" --list opera --mode pattern --out x
[ ! -e x/greedy.jsonl ] || fail "something was computed before a refusal"
