#!/usr/bin/env bash
# candid score chair, candid chair: from annotation files to numbers, and what is refused on the way.
. "$SOURCE_DIR/tests/cli/common.sh"
data=$SOURCE_DIR/tests/data/chair
cd "$work" || exit 1
export XDG_DATA_HOME=$work/data

cat >instances.json <<'EOF'
{"images": [{"id": 1, "file_name": "COCO_val2014_000000000001.jpg"}, {"id": 2, "file_name": "two.jpg"}],
 "annotations": [{"image_id": 1, "category_id": 18}, {"image_id": 1, "category_id": 1}, {"image_id": 2, "category_id": 6}],
 "categories": [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}, {"id": 6, "name": "bus"}]}
EOF
echo '{"annotations": [{"image_id": 2, "caption": "A red car."}]}' >references.json
cat >captions.jsonl <<'EOF'
{"image_id": 1, "caption": "A man, two dogs and a cat. The dogs sleep."}
{"image": "val/two.jpg", "answer": "Cars behind a bus."}
EOF
truth=(--truth instances.json --reference references.json)

# Without a tagger: pattern, or the approximation, which says so.
run 0 "$CANDID" score chair captions.jsonl "${truth[@]}"
err_has "mode approximate takes every word for a noun"
out_has "mode approximate, tagger: none: every word a noun (approximate), truth by approximate"
run 2 "$CANDID" score chair captions.jsonl "${truth[@]}" --mode nltk38; err_has "candid chair import-tagger"
run 0 "$CANDID" score chair captions.jsonl "${truth[@]}" --mode pattern --json scores.json --scored scored.jsonl
out_has "mode pattern, tagger: none needed, truth by pattern, COCO classes"
out_has "2 captions, 5 mentions, 1 of them hallucinated"
for line in 'CHAIR_s      50.0' 'CHAIR_i      20.0' 'recall       75.0' 'precision    75.0' 'F1           75.0' \
    'length        9.0'; do
    out_has "$line"
done
grep -q '"chair_i":[[:space:]]*0.2' scores.json || fail "scores.json"
[ "$(wc -l <scored.jsonl)" = 2 ] || fail "scored.jsonl"
grep -q '"word":"cat","class":"cat","hallucinated":true,"index":7' scored.jsonl || fail "the cat in scored.jsonl"

# lmms-eval's log of the same captions.
cat >samples.jsonl <<'EOF'
{"doc_id": 0, "target": "['dog']", "filtered_resps": "A man, two dogs and a cat. The dogs sleep.", "coco_cap_chair_i": {"answer": ["dog"], "pred": ["dog"], "image_id": 1}}
{"doc_id": 1, "target": "['bus']", "filtered_resps": ["Cars behind a bus."], "coco_cap_chair_i": {"answer": ["bus"], "pred": [], "image_id": 2}}
EOF
run 0 "$CANDID" score chair samples.jsonl "${truth[@]}" --mode pattern
out_has "2 captions, 5 mentions, 1 of them hallucinated"

# Instances alone are another truth.
run 0 "$CANDID" score chair captions.jsonl --truth instances.json --mode pattern; out_has "truth by instances only"

# The tagger: imported once, found again.
run 0 "$CANDID" chair import-tagger "$data/nltk_data_39"
out_has "$work/data/candid/nltk-tagger: 21 tags"
run 0 "$CANDID" score chair captions.jsonl "${truth[@]}"; out_has "mode nltk38, tagger: imported"
run 0 "$CANDID" score chair captions.jsonl "${truth[@]}" --mode nltk39 --truth-mode pattern; out_has "truth by pattern"
run 0 "$CANDID" chair import-tagger "$data/nltk_data_38" -o tagger; out_has "averaged_perceptron_tagger.pickle"
run 0 "$CANDID" score chair captions.jsonl "${truth[@]}" --tagger tagger
run 1 "$CANDID" chair import-tagger "$data" -o tagger; err_has "averaged_perceptron_tagger"
run 2 "$CANDID" score chair captions.jsonl "${truth[@]}" --tagger captions.jsonl; err_has "no tagger file"

# The cache gives the same numbers, and only for what it was made from.
run 0 "$CANDID" chair cache "${truth[@]}" --mode pattern -o truth; out_has "2 images, 4 objects, mode pattern"
run 0 "$CANDID" score chair captions.jsonl --truth-cache truth --mode pattern --json cached.json
cmp -s scores.json cached.json || fail "the cache changed the scores"
run 0 "$CANDID" score chair captions.jsonl --truth-cache truth --mode nltk38 --truth-mode pattern
run 1 "$CANDID" score chair captions.jsonl --truth-cache truth --mode nltk38; err_has "was made in mode pattern"
run 0 "$CANDID" score chair captions.jsonl --truth-cache truth "${truth[@]}" --mode pattern
echo '{"annotations": [{"image_id": 2, "caption": "A red cat."}]}' >references.json
run 1 "$CANDID" score chair captions.jsonl --truth-cache truth "${truth[@]}" --mode pattern
err_has "was made from another file than references.json"
head -c 300 truth >cut
run 1 "$CANDID" score chair captions.jsonl --truth-cache cut --mode pattern; err_has "cut is cut or damaged"

# Shapes of other programs, and images that nobody knows.
echo '[{"question_id": 1, "text": "A dog."}, {"image_id": "2", "caption": "A bus."}]' >list.json
run 0 "$CANDID" score chair list.json --truth instances.json --mode pattern; out_has "CHAIR_i       0.0"
echo '{"image_id": 3, "caption": "A dog."}' >unknown.jsonl
run 1 "$CANDID" score chair unknown.jsonl --truth instances.json --mode pattern; err_has "caption 1: no annotation file lists"
run 0 "$CANDID" score chair unknown.jsonl --truth instances.json --mode pattern --unknown-images empty
out_has "recall     undefined"
out_has "CHAIR_i     100.0"
echo '{"image_id": 1}' >none.jsonl
run 1 "$CANDID" score chair none.jsonl --truth instances.json --mode pattern; err_has "none.jsonl:1: no caption"

# Command line
run 2 "$CANDID" score chair captions.jsonl; err_has "--truth FILE"
run 2 "$CANDID" score chair captions.jsonl "${truth[@]}" --mode nltk; err_has "expected nltk38, nltk39, pattern"
run 1 "$CANDID" score chair captions.jsonl --truth captions.jsonl --mode pattern; err_has "captions.jsonl"
run 2 "$CANDID" chair; run 2 "$CANDID" chair cache; run 2 "$CANDID" chair import-tagger
run 0 "$CANDID" chair --help; out_has "import-tagger"
run 4 "$CANDID" chair cache "${truth[@]}" --mode pattern -o no/such/truth; err_has "cannot write no/such/truth"
