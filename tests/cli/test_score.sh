#!/usr/bin/env bash
# candid score for MME, AMBER and leading questions: files of the official programs and runs of candid eval.
. "$SOURCE_DIR/tests/cli/common.sh"
json() { python3 -c "import json,sys; x=json.load(open(sys.argv[1])); sys.exit(not ($2))" "$1" || fail "$1: $2"; }

# MME: two sub-tasks, then all of the hallucination subset, then written back.
results=$work/results
mkdir "$results" "$work/again"
printf 'a.jpg\tA?\tYes\tYes\na.jpg\tB?\tNo\tNo, it is not\nb.jpg\tA?\tYes\tno\nb.jpg\tB?\tNo\tno\n' >"$results/existence.txt"
printf 'c.jpg\tA?\tYes\tMaybe\nc.jpg\tB?\tNo\tn\n' >"$results/count.txt"
run 0 "$CANDID" score mme "$results" --json "$work/mme.json" --write "$work/again"
out_has "existence"; out_has "125.00"
json "$work/mme.json" "x['scores']['subtasks']['existence'] == {'questions': 4, 'images': 2, 'acc': 0.75, 'acc_plus': 0.5, 'score': 125}"
json "$work/mme.json" "x['scores']['subtasks']['count']['score'] == 0 and 'hallucination' not in x['scores']"
cmp "$results/existence.txt" "$work/again/existence.txt" || fail "written results differ"
run 0 "$CANDID" score mme "$results/count.txt" --rule lmms-eval; out_has "50.00" # a single n counts
cp "$results/existence.txt" "$results/position.txt"
cp "$results/existence.txt" "$results/color.txt"
run 0 "$CANDID" score mme "$results"; out_has "375.00"
# The official tool's own reading of what was written: four columns, Yes or No, two lines per image.
python3 - "$work/again" <<'P' || fail "the official tool could not read what was written"
import os, sys
for name in os.listdir(sys.argv[1]):
    lines = open(os.path.join(sys.argv[1], name)).readlines()
    assert len(lines) % 2 == 0
    for line in lines:
        image, question, gold, answer = line.split("\t")
        assert gold.lower() in ("yes", "no")
P
cat >"$work/run.jsonl" <<'J'
{"index":1,"id":"b","split":"color","image":"a.jpg","question":"B?","label":"no","answer":"Yes"}
{"index":0,"id":"a","split":"color","image":"a.jpg","question":"A?","label":"yes","answer":"Yes"}
J
run 0 "$CANDID" score mme "$work/run.jsonl"; out_has "color"; out_has "50.00"
run 1 "$CANDID" score mme "$work"; err_has "expected MME's result files"
run 1 "$CANDID" score mme "$work/run.txt"; err_has "named after a sub-task"
run 2 "$CANDID" score mme "$results" --rule mine; err_has "official or lmms-eval"

# AMBER: questions by the official files; descriptions need the nouns.
amber=$SOURCE_DIR/tests/data/amber
python3 -c "
import json
rows = [r for r in json.load(open('$amber/responses.json')) if r['id'] > 1004]
json.dump(rows, open('$work/responses.json', 'w'))
with open('$work/amber.jsonl', 'w') as f:
    for i, r in enumerate(rows):
        f.write(json.dumps({'index': i, 'id': str(r['id']), 'answer': r['response']}) + '\n')
"
run 0 "$CANDID" score amber "$work/responses.json" --amber-data "$amber" --json "$work/amber.json" --scored "$work/scored.jsonl"
out_has "existence"; out_has "49.9"
json "$work/amber.json" "x['scores']['discriminative']['total'] == {'accuracy': 33.3, 'precision': 55.5, 'recall': 33.3, 'f1': 41.6, 'questions': 27}"
[ "$(grep -c '"correct":true' "$work/scored.jsonl")" = 9 ] || fail "expected 9 right answers"
run 0 "$CANDID" score amber "$work/amber.jsonl" --amber-data "$amber" --json "$work/same.json"
python3 -c "
import json
a, b = (json.load(open('$work/' + n))['scores'] for n in ('amber.json', 'same.json'))
assert a == b" || fail "a run scores otherwise than a response file"
# Descriptions: without a tagger every word of the vocabulary counts, but one with a capital letter ("SKY", "Cars").
run 0 env XDG_DATA_HOME="$work" "$CANDID" score amber "$amber/responses.json" --amber-data "$amber" --json "$work/all.json"
out_has "every word is a noun (approximate)"; out_has "AMBER score"
json "$work/all.json" "x['scores']['generative'] == {'chair': 40.9, 'cover': 37.5, 'hal': 80, 'cog': 24, 'images': 5, 'nouns': 22, 'hallucinated': 9}"
run 1 "$CANDID" score amber "$amber/responses.json" --amber-data "$amber" --tagger "$amber/responses.json"; err_has "responses.json"
run 2 "$CANDID" score amber "$work/responses.json"; err_has "--amber-data"
run 1 "$CANDID" score amber "$work/responses.json" --amber-data "$work"; err_has "relation.json"
run 0 "$CANDID" score amber --help; out_has "similarity.py"

# Leading questions.
cat >"$work/neutral.jsonl" <<'J'
{"id":"1","question":"A?","label":"yes","answer":"Yes"}
{"id":"2","question":"B?","label":"no","answer":"No"}
J
sed 's/Yes/No/' "$work/neutral.jsonl" >"$work/leading.jsonl"
run 0 "$CANDID" score sycophancy "$work/neutral.jsonl" "$work/leading.jsonl" --json "$work/sycophancy.json"
out_has "right, becomes wrong"; out_has "50.00 %"
json "$work/sycophancy.json" "x['scores']['right_wrong'] == 1 and x['scores']['newly_wrong'] == 0.5 and x['scores']['accuracy_leading'] == 0.5"
run 2 "$CANDID" score sycophancy "$work/neutral.jsonl"; err_has "expected NEUTRAL and LEADING"
