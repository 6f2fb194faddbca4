#!/usr/bin/env bash
# Mitigation methods end to end: --config and --set, reports, results as JSON lines, calibration.
. "$SOURCE_DIR/tests/cli/common.sh"
image=$SOURCE_DIR/examples/office_44.png
json() { python3 -c "import json,sys; x=json.load(open(sys.argv[1])); sys.exit(not ($2))" "$1" || fail "$1: $2"; }
line() { python3 -c "import json,sys; x=[json.loads(l) for l in open(sys.argv[1])]; sys.exit(not ($2))" "$1" || fail "$1: $2"; }

# Every configuration that comes with candid runs on a demo model, and says what it did.
number=0
for file in "$SOURCE_DIR"/configs/*.json; do
    name=$(basename "$file" .json)
    [ "$name" = models ] && continue
    number=$((number + 1))
    [ "$SANITIZE" = ON ] && [ $((number % 5)) != 0 ] && continue # the release build runs them all
    if [ "$name" = vista-code ]; then # its layers are those of a 32-layer model
        run 1 "$CANDID" caption --config "$file" "$image"; err_has '"25-30" names no layer of a model with 6 layers'
        continue
    fi
    if [ "$name" = vicrop-code ]; then run 1 "$CANDID" caption --config "$file" "$image"; err_has "vicrop: layer 14"; continue; fi
    if [ "$name" = carve-paper ]; then run 1 "$CANDID" caption --config "$file" "$image"; err_has 'the model has layers 0 to 5'; continue; fi
    run 0 "$CANDID" caption --config "$file" --max-new-tokens 6 --jsonl "$work/$name.jsonl" "$image"
    line "$work/$name.jsonl" "len(x) == 1 and 'text' in x[0] and x[0]['config'].keys() == x[0]['interventions'].keys()"
    [ "$name" = baseline ] || line "$work/$name.jsonl" "all(m['active'] or 'no token can exceed tau 20' in m['why'] or 'is not a leading one' in m['why'] for m in x[0]['interventions'].values())"
done

# What did nothing says why; neutral settings leave every logit as it is.
run 0 "$CANDID" caption "$image" --jsonl "$work/plain.jsonl"
run 0 "$CANDID" caption "$image" --set pai.alpha=0 --set pai.gamma=1 --set vhr.alpha=1 --set var.p=1 --jsonl "$work/neutral.jsonl"
line "$work/neutral.jsonl" "not any(m['active'] for m in x[0]['interventions'].values()) and all(m['why'] for m in x[0]['interventions'].values())"
python3 - "$work" <<'P' || fail "neutral settings change the logits"
import json, sys
a, b = (json.loads(open(f"{sys.argv[1]}/{n}.jsonl").readline()) for n in ("plain", "neutral"))
sys.exit(a["fingerprint"] != b["fingerprint"] or a["text"] != b["text"])
P
run 0 "$CANDID" caption "$image" --set pai=true -v; err_has "pai: layers [2,3,4,5]"
run 0 "$CANDID" caption "$image" --set pai.alpha=0 --set pai.gamma=1 -v; err_has "pai: did nothing: alpha = 0"
run 0 "$CANDID" caption "$image" --set var.tau=9 -v; err_has "var: did nothing: no image token exceeds tau 9"
run 0 "$CANDID" caption "$image" --set cca=true; err_has "not known to be trained with concentric causal attention"
run 0 "$CANDID" caption --model "$SOURCE_DIR/models/demo-cca/candid-demo-cca.gguf" "$image"; err_has "switch cca on"
run 0 "$CANDID" caption --model "$SOURCE_DIR/models/demo-cca/candid-demo-cca.gguf" --set cca=true "$image"
grep -q warning "$work/err" && fail "a warning about CCA on weights trained with it"

# Contradictions and mistakes.
run 1 "$CANDID" caption "$image" --set cca=true --set mma=true; err_has "cca and mma contradict each other"
run 2 "$CANDID" caption "$image" --set pai.alhpa=1; err_has 'did you mean "alpha"'
run 2 "$CANDID" caption "$image" --config "$work/none.json"; err_has "$work/none.json"
run 2 "$CANDID" caption "$image" --set pai=true --config "$SOURCE_DIR/configs/vhr.json"; err_has "--config"
run 1 "$CANDID" caption "$image" --set pai.layers=40; err_has "layer 40"
run 1 "$CANDID" caption "$image" --set vhr.table=none.json; err_has "none.json"
run 1 "$CANDID" caption "$image" --set 'head_scale.heads=[[9,0]]'; err_has "[9, 0]"
run 1 "$CANDID" caption "$image" --set 'var.sink_dims=[5000]'; err_has "5000"
run 1 "$CANDID" caption --model "$SOURCE_DIR/tests/golden/hf/llava15_mha" "$image" --set var=true; err_has "candid calibrate sinks"

# --resume: other methods are other work.
run 0 "$CANDID" caption "$image" --set pai=true --jsonl "$work/resumed.jsonl"
run 0 "$CANDID" caption "$image" --set pai=true --jsonl "$work/resumed.jsonl" --resume
line "$work/resumed.jsonl" "len(x) == 1"
run 0 "$CANDID" caption "$image" --set pai.alpha=0.3 --jsonl "$work/resumed.jsonl" --resume
line "$work/resumed.jsonl" "len(x) == 2 and x[0]['run'] != x[1]['run']"

# Calibration: tables that methods take.
run 2 "$CANDID" calibrate; err_has "calibrate sinks"
run 2 "$CANDID" calibrate heads; err_has "at least one image"
run 2 "$CANDID" calibrate sinks --tau x; err_has "--tau"
run 2 "$CANDID" calibrate sinks --set pai=true; err_has "only cca and mma"
run 0 "$CANDID" calibrate sinks --out "$work/sinks.json" "$image"
json "$work/sinks.json" "x['sink_dims'] == [181, 31] and x['found_in'] == 'first token'"
run 0 "$CANDID" caption "$image" --set "var.table=$work/sinks.json" -v; err_has "var: layers [2,3"
echo '{"sink_dims": [1], "n_embd": 77}' >"$work/other.json"
run 1 "$CANDID" caption "$image" --set "var.table=$work/other.json"; err_has "other.json: expected n_embd 192"
echo '{"sink_dims": [500], "sink_tau": 4}' >"$work/other.json"
run 1 "$CANDID" caption "$image" --set "var.table=$work/other.json"; err_has "other.json: expected sink dimensions from 0 to 191"
echo '{"sink_dims": [1], "sink_tau": "4"}' >"$work/other.json"
run 1 "$CANDID" caption "$image" --set "var.table=$work/other.json"; err_has "other.json: expected sink_tau"
echo '{"sink_dims": [1], "sink_tau": 4, "model": "another"}' >"$work/other.json"
run 0 "$CANDID" caption "$image" --set "var.table=$work/other.json"; err_has 'was made for model "another"'
run 0 "$CANDID" caption "$image" --set "var.table=$work/other.json" --jsonl "$work/table.jsonl"
echo '{"sink_dims": [1], "sink_tau": 5, "model": "another"}' >"$work/other.json"
run 0 "$CANDID" caption "$image" --set "var.table=$work/other.json" --jsonl "$work/table.jsonl" --resume
line "$work/table.jsonl" "len(x) == 2" # another table is another run
run 0 "$CANDID" caption "$image" --config "$SOURCE_DIR/configs/baseline.json" --jsonl "$work/plain.jsonl" --resume
line "$work/plain.jsonl" "len(x) == 1" # nothing switched on is the same as no configuration
run 1 "$CANDID" calibrate sinks --ctx 20; err_has "the context window (--ctx) holds 20"
run 2 "$CANDID" calibrate heads --tau 4 "$image"; err_has "--tau belongs to candid calibrate sinks"
run 0 "$CANDID" calibrate sinks --tau 13
out_has '"sink_dims":	[]'
run 0 "$CANDID" calibrate heads --out "$work/heads.json" "$image" "$SOURCE_DIR/examples/zoo_4.png"
json "$work/heads.json" "x['images'] == 2 and len(x['vhd']) == 6 and all(len(r) == 6 and min(r) >= 0 for r in x['vhd'])"
json "$work/heads.json" "all(0 < v < 1 for r in x['image_attention'] for v in r)"
echo '{"vhr": {"table": "heads.json"}, "head_scale": {"table": "heads.json", "top": 2}}' >"$work/fixed.json"
run 0 "$CANDID" caption "$image" --config "$work/fixed.json" -v; err_has "heads_scaled 2"
run 1 "$CANDID" caption --model "$SOURCE_DIR/tests/golden/hf/llava15_mha" "$image" --set "vhr.table=$work/heads.json"
err_has "was it made for another model?"

# The cost of methods.
run 0 "$CANDID" bench --methods 'pai.gamma=1,var.sink_dims=[0,1]+var.tau=2' --rounds 1 --decode 2 --json
json "$work/out" "[c['config'] for c in x] == ['nothing', 'pai.gamma=1', 'var.sink_dims=[0,1]+var.tau=2'] and all(c['decode_ratio'] > 0 for c in x)"
exit 0
