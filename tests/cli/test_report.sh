#!/usr/bin/env bash
# candid report from end to end: its files, what it refuses, and the page in a browser where there is one.
. "$SOURCE_DIR/tests/cli/common.sh"
data=$SOURCE_DIR/tests/data/report
page=$work/report.html

# A directory of runs: all outputs, warnings none.
run 0 "$CANDID" report "$data" --out "$page" --markdown "$work/report.md" --csv "$work/report.csv" --title "T <t>" \
    --images "$data/images"
err_has "wrote $page"
grep -q warning "$work/err" && fail "a warning about fair runs"
grep -q '^#### random' "$work/report.md" || fail "no table of a split in Markdown"
[ "$(grep -c '^pope,vhr,' "$work/report.csv")" -gt 15 ] || fail "too few lines of CSV"
grep -q 'data:image/png;base64,' "$page" || fail "no image in the page"
grep -qiE 'https?://|<link|@import|url\(|src="[^d]' "$page" && fail "the page refers to something outside"
[ "$(grep -c '<script' "$page")" = 2 ] || fail "not two scripts in the page"

# The same again is the same; another seed is not.
run 0 "$CANDID" report "$data"/{pope,chair}-*.json "--out=$work/again.html" --images "$data/images" --title "T <t>"
cmp "$page" "$work/again.html" || fail "two reports of the same runs differ"
run 0 "$CANDID" report "$data" --csv - --seed 1
cmp -s "$work/out" "$work/report.csv" && fail "the seed does nothing"
run 0 "$CANDID" report "$data" --markdown - --bootstrap 0
out_has '| greedy | 75.00 | 75.00 |'
run 0 "$CANDID" report "$data/pope-vhr.json" --no-images --out "$page.2"
grep -q 'data:image' "$page.2" && fail "images despite --no-images"
mkdir "$work/here"
(cd "$work/here" && run 0 "$CANDID" report "$data/pope-vhr.json" && [ -s report.html ]) || fail "no report.html by default"

# Unfair comparisons are told, other questions refused.
sed 's/"precision": "exact"/"precision": "fast"/; s/"name": "vhr"/"name": "fast"/' "$data/pope-vhr.json" >"$work/fast.json"
sed '/random/d' "$data/pope-vhr.jsonl" >"$work/pope-vhr.jsonl"
grep -E '"index": [4-7]' "$data/pope-vhr.scored.jsonl" >"$work/pope-vhr.scored.jsonl"
run 2 "$CANDID" report "$data/pope-greedy.json" "$work/fast.json" --csv -
err_has "did not answer the same questions"
err_has "--common"
run 0 "$CANDID" report "$data/pope-greedy.json" "$work/fast.json" --csv - --common
err_has "The precision is not the same: greedy: exact; fast: fast."
err_has "the numbers are of the 4 that all share"
out_has "pope,fast,popular,accuracy,0.75,"
run 0 "$CANDID" report "$data/pope-vhr.json" "$work/fast.json" --csv - --common
err_has "There is no baseline among the runs"

# What goes wrong
run 2 "$CANDID" report
err_has "expected runs to report"
run 2 "$CANDID" report "$work/missing.json"
err_has "missing.json: cannot be opened"
mkdir "$work/empty"
run 2 "$CANDID" report "$work/empty"
err_has "expected a directory with runs"
run 2 "$CANDID" report "$data" --bootstrap -1
err_has "--bootstrap: expected a number from 0 to 1000000"
run 2 "$CANDID" report "$data" --sed 1
err_has 'unknown option "--sed"'
run 2 "$CANDID" report "$data" --csv
err_has 'unknown option "--csv", or its value is missing'
run 4 "$CANDID" report "$data" --csv "$work/no/such/folder.csv"
err_has "cannot be written"
head -c 150 "$data/pope-vhr.jsonl" >"$work/pope-vhr.jsonl"
run 2 "$CANDID" report "$work/fast.json" --csv -
err_has "pope-vhr.jsonl:1: expected a line end, found a line that is cut off"
run 0 "$CANDID" report --help
out_has "--common"

# In a browser: the script runs without errors, makes the cards, and finds by its filters.
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
if [ -z "$browser" ]; then
    echo "SKIPPED: no chromium here, the page was not opened in a browser"
    exit 0
fi
sed 's~<head>~<head><script>window.addEventListener("error",e=>document.documentElement.setAttribute("data-error",e.message))</script>~
     s~</body>~<script>{const set=(i,v)=>{const s=document.querySelectorAll("select")[i];s.value=v;s.dispatchEvent(new Event("change"))};document.body.dataset.all=document.querySelectorAll(".card").length;document.body.dataset.bad=document.querySelectorAll(".card td.no").length;set(1,"0");set(2,"1");document.body.dataset.only=document.querySelectorAll(".card tbody tr").length;document.querySelectorAll(".tabs button")[1].click();document.body.dataset.marks=document.querySelectorAll("mark.wrong").length}</script></body>~' \
    "$page" >"$work/test.html"
"$browser" --headless --no-sandbox --disable-gpu --user-data-dir="$work/profile" --virtual-time-budget=5000 --dump-dom \
    "file://$work/test.html" >"$work/out" 2>"$work/err" </dev/null || { echo "SKIPPED: chromium does not start here"; exit 0; }
[ -s "$work/out" ] || { echo "SKIPPED: chromium prints nothing here"; exit 0; }
grep -q 'data-error="' "$work/out" && fail "a script failed: $(grep -o 'data-error="[^"]*"' "$work/out")"
out_has 'data-all="2"'   # cards of POPE, one per image
out_has 'data-bad="3"'   # wrong answers: two of greedy, one of vhr
out_has 'data-only="2"'  # wrong by greedy but not by vhr
out_has 'data-marks="1"' # the cat that is not there
out_has '<mark class="right" title="in the image">Dog</mark>'
echo "the page was opened in $browser"
