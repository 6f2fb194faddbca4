#!/usr/bin/env bash
# Protocols: every file is accepted and names its source, prompts are those of the public programs to the letter.
. "$SOURCE_DIR/tests/cli/common.sh"
protocols=$SOURCE_DIR/eval/protocols
demo=$SOURCE_DIR/models/demo/heldout
cd "$work" || exit 1

# ---- something to ask about for each benchmark ----
mkdir coco mme mme/existence
while IFS= read -r id; do
    : >"coco/COCO_val2014_$(printf '%012d' "$id").jpg"
done < <(cat "$SOURCE_DIR"/eval/chair/tables/images_*.txt)
cp "$demo/images/scene_000000.png" mme/existence/0001.png
printf '%s\t%s\n' "Is there a clock in this image? Please answer yes or no." Yes \
    "Is there a dog in this image? Please answer yes or no." No >mme/existence/0001.txt
printf '%s\n' '[{"id": 1, "image": "scene_000000.png", "query": "Describe this image."}]' >amber.json
printf '{"question_id": 1, "image": "scene_000000.png", "text": "Is there a clock in the image?", "label": "yes"}\n' >pope.jsonl

# plan PROTOCOL OPTIONS…
plan() {
    local name=$1
    shift
    case $name in
        pope-*) set -- pope --images "$demo/images" --questions pope.jsonl "$@" ;;
        chair-*) set -- chair --images coco "$@" ;;
        mme-*) set -- mme --images mme "$@" ;;
        amber-*) set -- amber --images "$demo/images" --questions amber.json --amber-data "$SOURCE_DIR/tests/data/amber" "$@" ;;
        *) fail "$name: of which benchmark?" ;;
    esac
    "$CANDID" eval "$@" --protocol "$protocols/$name.json" --plan
}

count=0
for file in "$protocols"/*.json; do
    name=$(basename "$file" .json)
    run 0 plan "$name"
    out_has "first prompt: "
    grep -q '"comment": "[A-Z]' "$file" || fail "$name: no comment"
    grep -Eq '"source": "[A-Za-z0-9-]+/[A-Za-z0-9_-]+ .*[a-z_*]+\.(py|json|yaml|sh|md)' "$file" || fail "$name: no source"
    case $name in # the published lists have 500 images
        chair-opera-* | chair-cca | chair-pai | chair-hgai)
            awk '/images encoded/ {exit !($4 == 500)}' out || fail "$name: expected 500 images" ;;
    esac
    count=$((count + 1))
done
[ $count -ge 23 ] || fail "only $count protocols"

# ---- prompts, written out by hand ----
# prompt PROTOCOL TEXT: the first prompt, \n for a line break.
prompt() {
    run 0 plan "$1"
    grep -qxF -- "first prompt: $2" out || fail "$1: expected the prompt \"$2\""
}
prompt pope-llava "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the user's questions. USER: <image>\nIs there a clock in the image?\nAnswer the question using a single word or phrase. ASSISTANT:"
prompt pope-lmms-eval "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the user's questions. USER: <image>\nIs there a clock in the image?\nAnswer the question using a single word or phrase. ASSISTANT:"
prompt pope-cca "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the human's questions. USER: <image>\nIs there a clock in the image?\nAnswer the question using a single word or phrase. ASSISTANT:"
prompt pope-vcd "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the human's questions. USER: <image>\nIs there a clock in the image? Please answer this question with one word. ASSISTANT:"
glued="A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the user's questions.USER: <image> "
for name in opera pai vista halc; do
    prompt pope-$name "${glued}Is there a clock in the image? ASSISTANT:"
done
prompt chair-opera-512 "${glued}Please describe this image in detail. ASSISTANT:"
prompt chair-opera-64 "${glued}Please describe this image in detail. ASSISTANT:"
prompt chair-pai "${glued}Please help me describe the image in detail. ASSISTANT:"
prompt chair-vista "${glued}Please help me describe the image in detail. ASSISTANT:"
prompt chair-cca "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the human's questions. USER: <image>\nPlease describe this image in detail. ASSISTANT: ASSISTANT:"
prompt chair-hgai "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the human's questions. USER: <image>\nPlease help me describe the image in detail. ASSISTANT:"
prompt chair-damro "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the human's questions. USER: <image>\nGenerate a short caption of this image. ASSISTANT:"
prompt mme-llava "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the user's questions. USER: <image>\nIs there a clock in this image?\nAnswer the question using a single word or phrase. ASSISTANT:"
prompt mme-official "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the user's questions. USER: <image>\nIs there a clock in this image? Please answer yes or no. ASSISTANT:"
prompt amber-official "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the user's questions. USER: <image>\nDescribe this image. ASSISTANT:"

# ---- what is given wins, wherever it stands; --protocol=FILE is the same ----
run 0 "$CANDID" eval pope --suffix ' One\nword.' --images "$demo/images" --questions pope.jsonl \
    --protocol="$protocols/pope-llava.json" --template plain --plan
out_has 'first prompt: <image>\nIs there a clock in the image? One\nword.'
run 0 plan chair-pai --list "$SOURCE_DIR/tests/cli/test_protocols.sh" # any file of lines
awk '/images encoded/ {exit $4 == 500}' out || fail "--list does not replace that of the protocol"

# ---- a run keeps what the protocol said; reproducing it does not need the file ----
printf '%s\n' '{"options": {"questions": ["a_random.jsonl", "a_popular.jsonl"], "suffix": "\nOne word.", "max-new-tokens": 3,' \
    '"no-baseline": false, "strict": true, "set": ["decode.beams=2"], "temperature": 0}}' >own.json
printf '{"question_id": 2, "image": "scene_000001.png", "text": "Is there a dog in the image?", "label": "no"}\n' >a_popular.jsonl
cp pope.jsonl a_random.jsonl
run 0 "$CANDID" eval pope --images "$demo/images" --threads 1 --protocol own.json --out kept
[ -e kept/greedy.json ] || fail "\"no-baseline\": false left the baseline out"
[ "$(wc -l <kept/set.jsonl)" = 2 ] || fail "a list in a protocol: expected questions of both files"
grep -qF '"suffix":	"\nOne word."' kept/set.json || fail "the suffix is not in the summary"
rm own.json
run 0 "$CANDID" eval --reproduce kept/set.json --threads 1
out_has "2 of 2 answers are the same"

# ---- --cut leaves out every place of a text, and changes the run ----
printf '{"question_id": 3, "image": "scene_000001.png", "text": "Well, is it well, or not? Well,", "label": "no"}\n' >well.jsonl
run 0 "$CANDID" eval pope --images "$demo/images" --questions well.jsonl --cut "Well," --template plain --plan
out_has 'first prompt: <image>\n is it well, or not? '
run 0 "$CANDID" eval pope --images "$demo/images" --questions well.jsonl --threads 1 --out cut
run 4 "$CANDID" eval pope --images "$demo/images" --questions well.jsonl --threads 1 --out cut --resume --cut "Well,"
err_has "another model, configuration, settings or questions"

# ---- refusals ----
# refuse TEXT PROTOCOL OPTIONS…: what the protocol holds is refused with TEXT.
refuse() {
    local text=$1
    printf '%s\n' "$2" >bad.json
    shift 2
    run 2 "$CANDID" eval pope --images "$demo/images" --questions pope.jsonl --plan --protocol bad.json "$@"
    err_has "$text"
}
refuse 'bad.json: candid eval has no option --sufix' '{"options": {"sufix": "x"}}'
refuse 'bad.json: candid eval has no option --max-new' '{"options": {"max-new": 3}}'
refuse 'bad.json: candid eval has no option --protocol' '{"options": {"protocol": "x"}}'
refuse 'bad.json: "strict": expected true or false, found number 1' '{"options": {"strict": 1}}'
refuse 'bad.json: "suffix": expected a text or a number, found ' '{"options": {"suffix": true}}'
refuse 'bad.json: "questions": expected a text or a number, found ' '{"options": {"questions": ["a", null]}}'
refuse '--max-new-tokens: expected a whole number' '{"options": {"max-new-tokens": 1.5}}'
refuse 'bad.json: expected the texts "comment" and "source" and an object "options", found "suffix"' '{"suffix": "x", "options": {}}'
refuse 'found "comment"' '{"comment": 3, "options": {}}'
refuse 'bad.json: expected an object "options"' '{"comment": "nothing"}'
refuse 'bad.json' '{"options": '
refuse 'can be given once' '{"options": {}}' --protocol bad.json
run 2 "$CANDID" eval pope --images "$demo/images" --questions pope.jsonl --plan --protocol
err_has "--protocol needs a value"
run 2 "$CANDID" eval pope --images "$demo/images" --questions pope.jsonl --plan --protocol none.json
err_has "none.json"

# ---- a sampled baseline is one in reports, too ----
run 0 "$CANDID" eval pope --images "$demo/images" --questions pope.jsonl --protocol "$protocols/pope-vcd.json" \
    --set vcd=true --name vcd --threads 1 --max-new-tokens 2 --out sampled
run 0 "$CANDID" report sampled --markdown table.md
grep -q '^| sampled | .* |$' table.md || fail "no row for the sampled baseline"
sed -n '/^| vcd /p' table.md | grep -q '(' || fail "vcd is not compared with the sampled baseline: $(cat table.md)"
