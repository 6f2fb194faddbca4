#!/usr/bin/env bash
# POPE end to end: questions are built, answers of several programs scored, and what does not fit is refused.
. "$SOURCE_DIR/tests/cli/common.sh"
json() { python3 -c "import json,sys; x=json.load(open(sys.argv[1])); sys.exit(not ($2))" "$1" || fail "$1: $2"; }

# The official builder's questions of the test vectors; a split alone is the split of all.
python3 - "$SOURCE_DIR/tests/data/pope/vectors.json" "$work" <<'P' || fail "no vectors"
import json, sys
build = json.load(open(sys.argv[1]))["build"]
write = lambda name, rows: open(f"{sys.argv[2]}/{name}", "w").write("".join(json.dumps(r) + "\n" for r in rows))
write("objects.jsonl", build["segmentation"])
for split in ("popular", "random"):
    write(f"official_{split}.jsonl", build[split])
P
mkdir "$work/all"
run 0 "$CANDID" pope build --objects "$work/objects.jsonl" --images all --seed 7 --typo -o "$work/all"
out_has "pope_random.jsonl: 72 questions"
cmp "$work/all/pope_popular.jsonl" "$work/official_popular.jsonl" || fail "popular differs from the official program"
cmp "$work/all/pope_random.jsonl" "$work/official_random.jsonl" || fail "random differs from the official program"
run 0 "$CANDID" pope build --objects "$work/objects.jsonl" --images all --seed 7 --typo --split adversarial -o "$work/one.jsonl"
cmp "$work/all/pope_adversarial.jsonl" "$work/one.jsonl" || fail "a split alone is another one"
run 0 "$CANDID" pope build --objects "$work/objects.jsonl" --images 5 --per-image 2 --split random --template "A {}?" -o -
[ "$(wc -l <"$work/out")" = 20 ] && out_has '"text": "A person?"' || fail "expected 20 questions of another form"
python3 -c "import json; d=json.load(open('$SOURCE_DIR/models/demo/heldout/instances.json')); assert d['annotations']"
run 0 "$CANDID" pope build --instances "$SOURCE_DIR/models/demo/heldout/instances.json" --images 5 --split popular -o "$work/demo.jsonl"
[ "$(grep -c '"label": "yes"' "$work/demo.jsonl")" = 15 ] || fail "expected 15 questions with yes"

# Objects that only the reference captions name come last, in the order of the categories.
cat >"$work/coco.json" <<'J'
{"images": [{"id": 1, "file_name": "COCO_val2014_000000000001.jpg"}, {"id": 2, "file_name": "COCO_val2014_000000000002.jpg"}],
 "annotations": [{"image_id": 1, "category_id": 18}, {"image_id": 1, "category_id": 1}, {"image_id": 2, "category_id": 3}],
 "categories": [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}, {"id": 18, "name": "dog"}]}
J
cat >"$work/coco_captions.json" <<'J'
{"annotations": [{"image_id": 1, "id": 1, "caption": "A dog on a couch beside a bicycle."},
 {"image_id": 2, "id": 2, "caption": "A car between a boat, a bird, two zebras and a kite."}]}
J
run 0 "$CANDID" pope build --instances "$work/coco.json" --captions "$work/coco_captions.json" --images all --per-image 4 --split popular -o -
asked=$(grep '000001.jpg.*"yes"' "$work/out" | sed 's/.*there a \(.*\) in the.*/\1/' | paste -sd' ')
[ "$asked" = "dog person bicycle couch" ] || fail "expected annotated objects, then named ones, found $asked"
run 1 "$CANDID" pope build --instances "$work/coco.json" --images all --split popular -o -; err_has "found 0 of 2 images"
run 2 "$CANDID" pope build --objects "$work/objects.jsonl" --captions "$work/coco_captions.json" -o "$work/x"; err_has "--instances FILE (with --captions or not)"

run 2 "$CANDID" pope build --objects "$work/objects.jsonl"; err_has "-o"
run 4 "$CANDID" pope build --objects "$work/objects.jsonl" -o "$work/objects.jsonl/folder"; err_has "cannot make the folder"
run 2 "$CANDID" pope build --objects "$work/objects.jsonl" --seed -1 -o "$work/all"; err_has '--seed: cannot use "-1"'
run 2 "$CANDID" pope build --objects "$work/objects.jsonl" --split odd -o "$work/all"; err_has '--split: cannot use "odd"'
run 2 "$CANDID" pope build --objects "$work/objects.jsonl" --template no -o "$work/all"; err_has '--template'
run 2 "$CANDID" pope; err_has "candid pope build"
run 1 "$CANDID" pope build --objects "$work/objects.jsonl" --images 13 -o "$work/all"; err_has "expected 13 images with at least 3 objects each, found 12 of 12"
run 4 "$CANDID" pope build --objects "$work/objects.jsonl" --images 5 --split random -o "$work/none/x"; err_has "cannot write"
run 0 "$CANDID" pope rules; out_has "official"; out_has "as opera"
run 0 "$CANDID" pope --help; out_has "first annotation"

# Answers in the official form, scored by the rules of the official program.
python3 - "$work" <<'P' || fail "no answers"
import json, sys
work = sys.argv[1]
answers = ["Yes", "No", "No.", "NO", "Yes, there is.", "There is not.", "It isn't."]
for split in ("random", "popular"):
    rows = [json.loads(line) for line in open(f"{work}/official_{split}.jsonl")]
    with open(f"{work}/answers_{split}.jsonl", "w") as f, open(f"{work}/ours_{split}.jsonl", "w") as g:
        for i, row in enumerate(rows):
            answer = answers[(i * i + i // 3) % len(answers)]
            f.write(json.dumps({"question": row["text"], "answer": answer}) + "\n")
            g.write(json.dumps({"index": i, "id": str(i), "split": split, "image": row["image"], "question": row["text"],
                                "label": row["label"], "answer": answer}) + "\n")
P
questions=("$work/official_random.jsonl" "$work/official_popular.jsonl")
run 0 "$CANDID" score pope "$work/answers_random.jsonl" "$work/answers_popular.jsonl" --questions "${questions[@]}" \
    --json "$work/scores.json" --scored "$work/scored.jsonl"
out_has "72 questions"; out_has "mean"; out_has "no published version"
python3 - "$work" <<'P' || fail "the scores are not those of the official program"
import json, sys
work = sys.argv[1]
scores = json.load(open(f"{work}/scores.json"))["scores"]
verdicts = [json.loads(line) for line in open(f"{work}/scored.jsonl")]
assert [v["index"] for v in verdicts] == list(range(144))
accuracies = []
for s, split in enumerate(("random", "popular")):
    gold = [json.loads(line)["label"] != "no" for line in open(f"{work}/official_{split}.jsonl")]
    yes = []
    for line in open(f"{work}/answers_{split}.jsonl"):
        words = json.loads(line)["answer"].split(".")[0].replace(",", "").split(" ")
        yes.append(not {"No", "not", "no"} & set(words))
    tp = sum(g and y for g, y in zip(gold, yes))
    precision, recall = tp / sum(yes), tp / sum(gold)
    found = scores["splits"][split]
    assert found["tp"] == tp and found["answers"] == 72
    assert found["precision"] == precision and found["recall"] == recall, found
    assert found["f1"] == 2 * precision * recall / (precision + recall), found
    assert found["accuracy"] == sum(g == y for g, y in zip(gold, yes)) / 72 and found["yes_ratio"] == sum(yes) / 72
    assert [v["verdict"] for v in verdicts[72 * s : 72 * s + 72]] == ["yes" if y else "no" for y in yes]
    accuracies.append(found["accuracy"])
assert scores["mean"]["accuracy"] == sum(accuracies) / 2
P
run 0 "$CANDID" score pope "$work/ours_random.jsonl" "$work/ours_popular.jsonl" --json "$work/ours.json"
python3 -c "
import json
a, b = (json.load(open('$work/' + n))['scores'] for n in ('scores.json', 'ours.json'))
assert a == b" || fail "answers beside their questions score otherwise"
run 0 "$CANDID" score pope --questions "${questions[@]}" --rule all --json - -- "$work/answers_random.jsonl" "$work/answers_popular.jsonl"
out_has '"vlmevalkit":'
run 0 "$CANDID" score pope "$work/ours_random.jsonl" --rule pai --split other --json "$work/pai.json"
json "$work/pai.json" "x['scores']['rule'] == 'pai' and list(x['scores']['splits']) == ['random'] and x['sources'][0]['lines'] == 72"

tac "$work/ours_random.jsonl" >"$work/reversed.jsonl" # a run may stand in any order; its index decides
run 0 "$CANDID" score pope "$work/reversed.jsonl" --scored "$work/reversed.scored"
run 0 "$CANDID" score pope "$work/ours_random.jsonl" --scored "$work/ours.scored"
cmp "$work/reversed.scored" "$work/ours.scored" || fail "the order of a run's lines matters"

run 1 "$CANDID" score pope "$work/ours_random.jsonl" "$work/reversed.jsonl"; err_has 'found "random", which an earlier file has too'

python3 - "$work" <<'P'
import json, sys
images = dict.fromkeys(json.loads(line)["image"] for line in open(f"{sys.argv[1]}/official_random.jsonl"))
with open(f"{sys.argv[1]}/captions.jsonl", "w") as f:
    for image in images:
        f.write(json.dumps({"image_id": int(image[4:7]), "caption": "A person and a dog"}) + "\n")
P
run 0 "$CANDID" score pope "$work/captions.jsonl" --opope --questions "$work/official_random.jsonl" --json "$work/opope.json"
python3 - "$work" <<'P' || fail "captions do not answer as in HALC"
import json, re, sys
rows = [json.loads(line) for line in open(f"{sys.argv[1]}/official_random.jsonl")]
objects = [re.fullmatch("Is there an? (.*) in the iman?ge\\?", r["text"])[1] for r in rows]
seen = [any(w in "A person and a dog" for w in o.split(" ")) for o in objects]
found = json.load(open(f"{sys.argv[1]}/opope.json"))["scores"]["splits"]["random"]
assert found["tp"] + found["fp"] == sum(seen) > 0, (found, sum(seen))
assert found["tp"] == sum(s and r["label"] == "yes" for s, r in zip(seen, rows))
P
run 2 "$CANDID" score pope "$work/captions.jsonl" --opope; err_has "--opope needs --questions"

# What does not fit together is refused, not cut off.
head -n 70 "$work/answers_random.jsonl" >"$work/short.jsonl"
run 1 "$CANDID" score pope "$work/short.jsonl" --questions "$work/official_random.jsonl"; err_has "expected an answer to each of the 72 questions"; err_has "official_random.jsonl, found 70"
run 1 "$CANDID" score pope "$work/answers_random.jsonl"; err_has "found no labels beside the questions"
run 1 "$CANDID" score pope "$work/official_random.jsonl"; err_has "found no answers beside the questions"
run 1 "$CANDID" score pope "$work/ours_random.jsonl" --questions "$work/official_random.jsonl"; err_has "expected the id of a question"
run 0 "$CANDID" score pope "$work/ours_random.jsonl" --questions "$work/official_random.jsonl" --by-order
sed '3s/"answer": "[^"]*"/"error": "no image"/' "$work/ours_random.jsonl" >"$work/failed.jsonl"
run 1 "$CANDID" score pope "$work/failed.jsonl"; err_has "1 of 72 questions have no answer"; out_has "71"
run 2 "$CANDID" score pope "$work/ours_random.jsonl" --rule mine; err_has 'no answer rule "mine"'
run 2 "$CANDID" score pope; err_has "expected files to score"
run 2 "$CANDID" score pope "$work/a" --questions; err_has "--questions needs a value"
run 2 "$CANDID" score pope "$work/a" --odd; err_has 'unknown option "--odd"'
run 2 "$CANDID" score pope "$work/a" "$work/b" "$work/c" --questions "${questions[@]}"; err_has "or one per question file (2), found 3"
run 2 "$CANDID" score checkers; err_has 'unknown benchmark "checkers"'
run 2 "$CANDID" score
run 0 "$CANDID" score --help; out_has "pope"
run 0 "$CANDID" score pope --help; out_has "--rule NAME|all"
run 4 "$CANDID" score pope "$work/ours_random.jsonl" --json "$work/none/x"; err_has "cannot write"

# lmms-eval's sample log: what the model said is scored, by its own rule as it does, by the official one otherwise.
cat >"$work/pope_samples.jsonl" <<'J'
{"doc_id": 0, "target": "yes", "filtered_resps": "Yes.", "input": "Is there a dog?", "pope_accuracy": {"question_id": "7", "score": 0.0, "prediction": "yes.", "ground_truth": "yes"}}
{"doc_id": 1, "target": "no", "filtered_resps": ["no"], "resps": ["No"], "input": "Is there a cat?", "pope_accuracy": {"question_id": "8", "score": 1.0, "prediction": "no", "ground_truth": "no"}}
J
run 0 "$CANDID" score pope "$work/pope_samples.jsonl" --rule lmms-eval --json "$work/log.json"
json "$work/log.json" "x['scores']['splits']['all']['accuracy'] == 0.5"
run 0 "$CANDID" score pope "$work/pope_samples.jsonl" --json "$work/log.json"
json "$work/log.json" "x['scores']['splits']['all']['accuracy'] == 1"
sed 's/"Yes."/["Yes.", "No."]/' "$work/pope_samples.jsonl" >"$work/two.jsonl"
run 1 "$CANDID" score pope "$work/two.jsonl"; err_has "expected one text in \"filtered_resps\""
