#!/usr/bin/env bash
# Hugging Face directories: run as they are, converted, quantised; what is cut short or refused leaves nothing behind.
. "$SOURCE_DIR/tests/cli/common.sh"
hf="$SOURCE_DIR/tests/golden/hf"
image="$hf/images/wide.png"
text() { sed -nE 's/.*"text":("([^"\\]|\\.)*").*/\1/p' "$1"; }
answer() { # OUT MODEL [MMPROJ]
    rm -f "$work/$1.jsonl"
    run 0 "$CANDID" caption --precision exact --max-new-tokens 24 --jsonl "$work/$1.jsonl" --model "$2" ${3:+--mmproj "$3"} "$image"
    text "$work/$1.jsonl"
}

# In f32 a converted file is the directory: same answer, though rows of q and k are stored in another order.
for name in llava15_mha next_vicuna; do
    run 0 "$CANDID" convert "$hf/$name" "$work/$name.gguf" --type f32
    out_has "$work/$name-mmproj.gguf"
    expected=$(answer directory "$hf/$name")
    [ -n "$expected" ] || fail "no text"
    [ "$expected" = "$(answer pair "$work/$name.gguf" "$work/$name-mmproj.gguf")" ] || fail "$name: converted answer differs"
    run 0 "$CANDID" convert "$hf/$name" "$work/$name-single.gguf" --type f32 --single
    [ "$expected" = "$(answer single "$work/$name-single.gguf")" ] || fail "$name: answer of the single file differs"
done
# The original layout needs its CLIP directory, and says so.
run 3 "$CANDID" caption --model "$hf/liuhaotian" "$image"
err_has "--mmproj"
run 0 "$CANDID" convert "$hf/liuhaotian" "$work/original.gguf" --mmproj "$hf/liuhaotian_clip" --type f32 --mmproj-out "$work/clip.gguf"
[ "$(answer directory "$hf/liuhaotian" "$hf/liuhaotian_clip")" = "$(answer pair "$work/original.gguf" "$work/clip.gguf")" ] ||
    fail "original layout: converted answer differs"

# Quantisation: smaller, and it runs. The image encoder in the same file is copied.
for type in q8_0 q4_0 q4_k_m q5_k_m q6_k; do
    run 0 "$CANDID" quantize "$work/llava15_mha-single.gguf" "$work/$type.gguf" --type $type
    [ "$(stat -c %s "$work/$type.gguf")" -lt "$(stat -c %s "$work/llava15_mha-single.gguf")" ] || fail "$type is not smaller"
    run 0 "$CANDID" caption --max-new-tokens 4 --model "$work/$type.gguf" "$image"
done

# Refusals
run 2 "$CANDID" quantize "$work/q8_0.gguf" "$work/q8_0.gguf" --type q4_0
err_has "another file than the input"
run 2 "$CANDID" quantize "$work/q8_0.gguf" "$work/x.gguf"
run 2 "$CANDID" quantize "$work/q8_0.gguf" "$work/x.gguf" --type q3_k
err_has "q3_k"
run 3 "$CANDID" quantize "$work/clip.gguf" "$work/x.gguf" --type q8_0
err_has "found an image encoder"
run 3 "$CANDID" convert "$work/q8_0.gguf" "$work/x.gguf"
err_has "candid quantize"
run 3 "$CANDID" convert "$hf/images" "$work/x.gguf"
err_has "config.json"
run 4 "$CANDID" convert "$hf/llava15_mha" "$work/no/such/directory/x.gguf"
err_has "cannot be written"
[ ! -e "$work/x.gguf" ] || fail "a refused command left a file"

# A model whose head count lies is refused before a byte is written.
cp -r "$hf/llava15_mha" "$work/lying"
sed -i 's/"num_attention_heads": 4,/"num_attention_heads": 3,/; s/"num_key_value_heads": 4,/"num_key_value_heads": 3,/' "$work/lying/config.json"
run 3 "$CANDID" convert "$work/lying" "$work/x.gguf"
[ ! -e "$work/x.gguf" ] || fail "a lying model was written"

# A full disk or an interrupt leaves no file that looks whole.
if [ -w /dev/full ]; then
    ln -s /dev/full "$work/full.gguf.partial"
    run 4 "$CANDID" convert "$hf/llava15_mha" "$work/full.gguf"
    [ ! -e "$work/full.gguf" ] || fail "a failed write left a file"
fi
ls "$work" | grep -q partial && fail "a partial file was left"
run 0 "$CANDID" model -v "$hf/llava15_gqa"
out_has "model.language_model.layers.0.self_attn.q_proj.weight"

