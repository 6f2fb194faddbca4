#!/usr/bin/env bash
# Searches, several answers, contrasts and second looks end to end: output, reports, and what is refused before any work.
. "$SOURCE_DIR/tests/cli/common.sh"
image=$SOURCE_DIR/examples/office_44.png
tiny=$SOURCE_DIR/tests/golden/hf/llava15_mha
configs=$SOURCE_DIR/configs
line() { python3 -c "import json,sys; x=json.loads(open(sys.argv[1]).readline()); i=x.get('interventions',{}); sys.exit(not ($2))" "$1" || fail "$1: $2"; }
lines() { [ "$(wc -l <"$work/out")" = "$1" ] || fail "expected $1 lines on stdout"; }

# says CONDITION ARGUMENTS…: a caption's JSON line x, with i its interventions.
says() {
    local condition=$1
    shift
    run 0 "$CANDID" caption --jsonl - --max-new-tokens 12 "$@" "$image"
    line "$work/out" "$condition"
}

# refused CODE TEXT ARGUMENTS…: fails with the text, before any answer.
refused() {
    local code=$1 text=$2
    shift 2
    run "$code" "$CANDID" caption "$@" "$image"
    err_has "$text"
    [ -s "$work/out" ] && fail "an answer in spite of an error"
    grep -q "prefill" "$work/err" && fail "work in spite of an error"
}

# ---- searches and several answers ----

run 0 "$CANDID" caption --beams 4 --answers 3 "$image"
lines 3
cp "$work/out" "$work/beams"
[ "$(sort -u "$work/out" | wc -l)" = 3 ] || fail "a beam search gives the same answer twice"
run 0 "$CANDID" caption --beams 4 "$image"
lines 1
[ "$(cat "$work/out")" = "$(head -1 "$work/beams")" ] || fail "one answer of a beam search is not the best of several"
run 0 "$CANDID" caption --beams 4 --answers 3 --jsonl "$work/beams.jsonl" "$image"
line "$work/beams.jsonl" "[a['text'] for a in x['answers']] == open('$work/beams').read().splitlines() and x['text'] == x['answers'][0]['text']"
line "$work/beams.jsonl" "[a['score'] for a in x['answers']] == sorted((a['score'] for a in x['answers']), reverse=True) and x['answers'][0]['score'] < 0"
line "$work/beams.jsonl" "all(a['finish'] == 'eos' for a in x['answers'])"
line "$work/beams.jsonl" "i['decode'] == dict(active=True, strategy='beam', beams=4, answers=3, steps=i['decode']['steps'], rows_per_step=4, kv_bytes=i['decode']['kv_bytes'])"
run 0 "$CANDID" caption --beams 1 "$image"
cp "$work/out" "$work/one_beam"
run 0 "$CANDID" caption "$image"
diff -q "$work/out" "$work/one_beam" >/dev/null || fail "a beam search with one beam is not greedy search"
run 0 "$CANDID" caption --beams 2 --answers 2 --max-new-tokens 4 "$image" "$SOURCE_DIR/examples/zoo_4.png"
lines 4
[ "$(grep -c "^$image: " "$work/out")" = 2 ] || fail "the answers of two images are not named"
run 0 "$CANDID" caption --beams 3 --stop scene "$image"
out_has "The image shows an office"
says "i['decode']['beams'] == 5 and i['decode']['strategy'] == 'beam'" --set decode.length_penalty=2
says "i['decode']['strategy'] == 'greedy' and i['decode']['answers'] == 1 and i['decode']['rows_per_step'] == 1" --set decode.strategy=greedy
says "'interventions' not in x and 'answers' not in x" # nothing is said of a search that nobody configured

# Samples: reproducible, and each is what its seed gives alone. More of them than fit in the first rows.
run 0 "$CANDID" caption --temperature 1 --answers 9 --seed 5 --max-new-tokens 24 "$image"
lines 9
cp "$work/out" "$work/samples"
run 0 "$CANDID" caption --temperature 1 --answers 9 --seed 5 --max-new-tokens 24 "$image"
diff -q "$work/out" "$work/samples" >/dev/null || fail "the same seed gives other samples"
[ "$(sort -u "$work/samples" | wc -l)" -gt 1 ] || fail "all samples are the same"
for i in 1 9; do
    run 0 "$CANDID" caption --temperature 1 --seed $((4 + i)) --max-new-tokens 24 "$image"
    [ "$(cat "$work/out")" = "$(sed -n ${i}p "$work/samples")" ] || fail "sample $i is not what its seed gives alone"
done
says "len(x['answers']) == 3 and i['decode']['strategy'] == 'sample' and 'score' in x['answers'][0]" --config "$configs/nucleus.json" --answers 3
says "i['decode']['rows_per_step'] <= 6 and i['vcd']['branches'][0]['rows_contrasted'] > 12" --set vcd=true --temperature 1 --answers 3

# OPERA
says "i['opera']['active'] and i['opera']['candidates_rewarded'] > 0 and i['opera']['rollbacks'] == [] and i['decode']['strategy'] == 'opera'" --config "$configs/opera.json"
says "i['decode']['rows_per_step'] > 5 and i['decode']['beams'] == 5" --set opera.candidates=2
run 0 "$CANDID" caption --set opera.threshold=1 --set opera.rollback_min=0 --beams 2 --answers 2 --max-new-tokens 24 --jsonl "$work/back.jsonl" "$image"
line "$work/back.jsonl" "len(x['answers']) == 2 and all(a >= b for a, b in i['opera']['rollbacks'])"
line "$work/back.jsonl" "len(i['opera']['rollbacks']) > 0"
says "i['pai']['active'] and i['opera']['active']" --set opera=true --beams 2 --set pai.gamma=1
says "i['dola']['active'] and i['opera']['active']" --set opera=true --beams 2 --set dola.cutoff=0

# ---- contrasts ----

for method in vcd damro causalmm icd agla pai paint; do
    says "i['$method']['active'] and [b['rows_contrasted'] for b in i['$method']['branches']] == [12]" --set "$method=true"
    [ "$method" = pai ] || [ "$method" = paint ] && continue
    says "[b['rows_contrasted'] for b in i['$method']['branches']] == [1] and i['decode']['rows_per_step'] == 1" --set "$method.first_token_only=true" --set decode.strategy=greedy
done
says "[b['sees'] for b in i['causalmm']['branches']] == ['counterfactual image attention', 'counterfactual language attention']" --config "$configs/causalmm-both.json"
says "i['vcd']['branches'][0]['shared_tokens'] == 4 and i['damro']['branches'][0]['prompt_tokens'] < x['prompt_tokens'] < i['icd']['branches'][0]['prompt_tokens'] and i['decode']['rows_per_step'] == 12" \
    --set vcd=true --set damro=true --set icd=true --beams 3
says "'branches' not in i['pai'] and i['pai']['active']" --set pai.gamma=1
says "not i['vcd']['active'] and 'weight 0' in i['vcd']['why']" --set vcd.alpha=0 --set vcd.beta=0
says "not i['causalmm']['active'] and 'both off' in i['causalmm']['why']" --set causalmm.vision=off
says "i['vcd']['active'] and i['dola']['active']" --set vcd=true --set dola=true --set decode.branch_edits=same
fingerprints=
for edits in none same; do
    run 0 "$CANDID" caption --set icd=true --set pai.gamma=1 --set decode.branch_edits=$edits --max-new-tokens 4 --jsonl - "$image"
    fingerprints="$fingerprints $(grep -o '"fingerprint":"[0-9a-f]*"' "$work/out")"
done
[ "$(tr ' ' '\n' <<<"$fingerprints" | sort -u | grep -c finger)" = 2 ] || fail "decode.branch_edits changes nothing"

# LQCD: leading questions are asked neutrally, others as they are.
run 0 "$CANDID" ask -q "Isn't there a clock in the image?" --set lqcd=true --jsonl - "$image"
line "$work/out" "i['lqcd']['active'] and i['lqcd']['asked'] == 'Is there a clock in the image?' and i['lqcd']['branches'][0]['shared_tokens'] > 64"
line "$work/out" "x['prompt'] == \"Isn't there a clock in the image?\""
run 0 "$CANDID" ask -q "There is a clock in the image, right?" --set lqcd=true --jsonl - "$image"
line "$work/out" "i['lqcd']['active'] and i['lqcd']['asked'] == 'Is there a clock in the image?'"
run 0 "$CANDID" ask -q "Is there a clock in the image?" --set lqcd=true --jsonl - "$image"
line "$work/out" "not i['lqcd']['active'] and 'not a leading one' in i['lqcd']['why']"
run 0 "$CANDID" ask -q "Is there a clock in the image?" --set "lqcd.neutral=Is there a clock in the image?" -v "$image"
err_has "lqcd: did nothing: lqcd.neutral is the question itself"
run 0 "$CANDID" inspect -q "Isn't there a clock in the image?" --set lqcd=true --words all --out "$work/look" "$image"

# Second looks
for method in vicrop carve; do
    says "0 <= i['$method']['box'][0] < i['$method']['box'][2] <= 448 and i['$method']['images_shown'] == 2 and x['prompt_tokens'] > 140" --set "$method=true"
    says "i['$method']['images_shown'] == 1 and x['prompt_tokens'] < 100" --set "$method.images=refined"
    run 2 "$CANDID" inspect --set "$method=true" --out "$work/look" "$image"; err_has "$method asks again about another"
done
says "i['vicrop']['active'] and i['vcd']['active'] and i['decode']['beams'] == 2" --set vicrop=true --set vcd=true --beams 2

# ---- the list of contrasts in a file ----

contrasts() { printf '{\n  "decode": {"contrast": [%s]}\n}\n' "$1" >"$work/list.json"; }
contrasts '"icd",
    {"method": "vcd", "alpha": 0.5, "comment": "half"}'
says "x['config']['vcd']['alpha'] == 0.5 and i['icd']['active'] and i['vcd']['active']" --config "$work/list.json"
contrasts '"icd",
    "vdc"'
refused 2 'list.json:3: key decode.contrast: there is no contrast "vdc"; did you mean "vcd"?' --config "$work/list.json"
contrasts '"nothing_like_it"'
refused 2 'contrasts are vcd, damro, causalmm, icd, lqcd, agla' --config "$work/list.json"
contrasts '"pai"'
refused 2 '"pai" is no contrast: switch it on by its own key' --config "$work/list.json"
contrasts '7'
refused 2 'list.json:2: key decode.contrast: expected the name of a method' --config "$work/list.json"
contrasts '{"alpha": 1}'
refused 2 'an object with "method": NAME' --config "$work/list.json"
contrasts '{"method": "vcd", "alhpa": 1}'
refused 2 'list.json:2: key vcd.alhpa: vcd has no such option; did you mean "alpha"?' --config "$work/list.json"
echo '{"decode": {"contrast": "vcd"}}' >"$work/list.json"
refused 2 'expected a list of methods or null, found string "vcd"' --config "$work/list.json"
refused 2 "a list of methods stands in a file" --set 'decode.contrast=["vcd"]'

# Under the sanitizers what is refused is asked by the unit tests alone: there each start of the program takes a second.
[ "$SANITIZE" = ON ] && exit 0

# ---- what is refused ----

refused 2 "--beams: assignment" --beams 257
refused 2 "--answers: assignment" --answers none
refused 2 "before any --set, --beams or --answers" --beams 3 --config "$configs/vcd.json"
refused 1 "256 beams look at 512 continuations each time, but the vocabulary has 432 tokens" --model "$tiny" --beams 256
refused 1 "opera: expected candidates" --set opera.candidates=1000
refused 2 "opera.max_rollbacks" --set opera.max_rollbacks=0
refused 2 "did you mean \"beams\"?" --set decode.beam=5
refused 2 '"greedy", "sample", "beam", "opera" or "auto"' --set decode.strategy=best
refused 1 "opera and vcd exclude each other" --set opera=true --set vcd=true
refused 1 "set pai.gamma to 1" --set opera=true --set pai=true
refused 1 "set dola.cutoff to 0" --set opera=true --set dola=true
refused 1 "opera compares beams" --set opera=true --beams 1
refused 1 'expected "opera" or "auto"' --set opera=true --set decode.strategy=beam
refused 1 "vicrop and carve exclude each other" --set vicrop=true --set carve=true
refused 1 'expected temperature 0, found 1' --beams 5 --temperature 1
refused 1 'expected temperature 0, found 1' --set opera=true --temperature 1
refused 1 'expected temperature 0, found 1' --set vicrop=true --beams 5 --temperature 1 # before the first look
refused 1 "expected a temperature above 0" --set decode.strategy=sample
refused 1 "expected at most as many as beams (3), found 4" --beams 3 --answers 4
refused 1 "greedy search has one answer, found 2" --answers 2
refused 1 'agla.map "file"' --set agla.file=map.png
refused 1 "none.png" --set agla.map=file --set agla.file=none.png
refused 1 "expected a block of the image encoder" --set damro.block=40
run 1 "$CANDID" caption --set vicrop=true --together "$image" "$image"; err_has "expected one in the request, found 2"

# The context holds the answer's prompt, but not the branch's or the second image.
run 0 "$CANDID" caption --ctx 100 --max-new-tokens 8 "$image"
refused 1 "the prompt that icd contrasts with has 138 tokens" --ctx 100 --max-new-tokens 8 --set icd=true
refused 1 "the prompt with its 2 images has" --ctx 100 --max-new-tokens 8 --set vicrop=true
run 0 "$CANDID" caption --ctx 100 --max-new-tokens 8 --beams 4 --set damro=true "$image"

# Costs that bench cannot see are not given as none.
run 1 "$CANDID" bench --methods vcd; err_has "vcd adds rows"
run 1 "$CANDID" bench --methods pai; err_has "pai.gamma=1"

# Without an image, which only the library can ask for.
cat >"$work/none.c" <<'C'
#include <candid/candid.h>
#include <stdio.h>
#include <string.h>

/* none MODEL CONFIG: answers a question without an image. */
int main(int argc, char **argv) {
    candid_model *model = NULL;
    candid_context *context = NULL;
    candid_config *config = NULL;
    const candid_result *result = NULL;
    candid_error error = {0};
    candid_generate_params params = candid_generate_params_default();
    candid_status status = argc == 3 ? candid_model_open(argv[1], NULL, &model, &error) : CANDID_ERROR_ARGUMENT;
    status = status ? status : candid_context_create(model, NULL, &context, &error);
    status = status ? status : candid_config_parse(argv[2], strlen(argv[2]), NULL, &config, &error);
    params.config = config;
    params.max_new_tokens = 3;
    status = status ? status : candid_generate(context, NULL, 0, "Isn't there a dog?", &params, &result, &error);
    status ? fprintf(stderr, "%s\n", error.message) : printf("%zu %s\n", result->n_answers, result->interventions);
    candid_result_free(result);
    candid_config_free(config);
    candid_context_free(context);
    candid_model_free(model);
    return status ? 1 : 0;
}
C
flags=$([ "$SANITIZE" = ON ] && echo "-fsanitize=address,undefined")
run 0 "$CC" $flags -I"$SOURCE_DIR/include" "$work/none.c" -o "$work/none" "$LIBCANDID" -Wl,-rpath,"$(dirname "$LIBCANDID")"
for method in vcd damro causalmm agla; do
    run 1 "$work/none" "$demo_model" "{\"$method\": true}"; err_has "$method contrasts with another view of the image"
done
run 1 "$work/none" "$demo_model" '{"vicrop": true}'; err_has "expected one in the request, found 0"
run 0 "$work/none" "$demo_model" '{"icd": true, "lqcd": true, "causalmm": {"vision": "off", "language": "uniform"}, "decode": {"beams": 2, "answers": 2}}'
out_has '2 {"causalmm":{"active":true'
run 0 "$work/none" "$demo_model" '{"pai": true}'
out_has '"active":false'
exit 0
