/* The published versions of POPE, told by what is asked and not by the form of the file. */
#include <string.h>

#include "eval/common/sha256.h"
#include "eval/pope/pope.h"

/*
 * SHA-256 of "image TAB text TAB label NEWLINE" of every question in order, computed from the history of
 * github.com/RUCAIBox/POPE (commits 28f884a, 7ef3026, edebdda, 9b54106, 109985c).
 */
static const struct {
    const char *sha256, *name;
} versions[] = {
    {"2410af6d014ce1e705e6b131c68f24131abdc3b47d2923f9effbebd20afa5e2a", "POPE-COCO random, 2910 questions (old)"},
    {"9bb81f9571382b0b7cbe62fa25260799c4678c45a6571a604f39ac7a0eeb012a", "POPE-COCO popular, with imange (old)"},
    {"2e5fc8fa588a6e642297cb9c7dae60f2a09ce8fa077bb9712ac2801225c0a906", "POPE-COCO adversarial, with imange (old)"},
    {"d4531e68953c8b2f8bccbed4be17df4098464dc160d2f04230165ed51fef67e6",
     "POPE-COCO random, other images (August 2023)"},
    {"1ff4ce92d309c6395b8ae2a73b5cf90cad9415920796783d13c1a46ba4f63a05",
     "POPE-COCO popular, other images (August 2023)"},
    {"e159eaee89b898d21647926c07b2adca477a8e6d06606b4518807bf10bf630ec",
     "POPE-COCO adversarial, other images (August 2023)"},
    {"36228a74b5e9a35f6089de252f94a17acc70615a719033965abcf6ebc0452a0a", "POPE-COCO random, 3000 questions (current)"},
    {"5641e62daabe62a50ecc9b160c9d8de58a8cf176882038b96bce98b6b72864e3", "POPE-COCO popular (current)"},
    {"8eb04511f0ca466ffe17d56ee27aef3607354493538603d87258975ce065da61",
     "POPE-COCO adversarial, with imange (October 2023)"},
    {"d95e5bca305f20219ef38f3efa285443255dc2a43c8036aeeaad71995e88554a", "POPE-COCO adversarial (current)"},
    {"5cc4a7443b9d4d11cfa514539ee3768bed388ccae6f2d723346d2aff711eb71e", "POPE-A-OKVQA random"},
    {"528d7d0ba456f5c2a4355187307226da00b312f6f3ade410490c262b85b37f1a", "POPE-A-OKVQA popular"},
    {"37aca11a994034e641002b6a52da7ae5c0ca79b4c136f73be74c216662a93067", "POPE-A-OKVQA adversarial"},
    {"21f929bb7559e1418f996d2111c735a09f4fbadb14d505b979a7c4e3fedd372c", "POPE-GQA random"},
    {"3368ae6d01155fbb8007cec68cd9f33308da71e905a08bc302b8038172824978", "POPE-GQA popular"},
    {"9986b29d4f61569b6587592e00b7490ceab284e7dbb3ddd5b897cc1d04e598b8", "POPE-GQA adversarial"},
};

static void add(struct sha256 *h, const char *text, const char *after) {
    sha256_add(h, text ? text : "", text ? strlen(text) : 0);
    sha256_add(h, after, 1);
}

const char *pope_known_version(const struct eval_items *items, size_t begin, size_t end) {
    struct sha256 h;
    char hex[65];
    sha256_begin(&h);
    for (size_t i = begin; i < end; i++) {
        add(&h, items->items[i].image, "\t");
        add(&h, items->items[i].question, "\t");
        add(&h, items->items[i].label, "\n");
    }
    sha256_end(&h, hex);
    for (size_t v = 0; v < sizeof versions / sizeof *versions; v++) {
        if (strcmp(versions[v].sha256, hex) == 0) {
            return versions[v].name;
        }
    }
    return NULL;
}

size_t pope_count_imange(const struct eval_items *items, size_t begin, size_t end) {
    size_t n = 0;
    for (size_t i = begin; i < end; i++) {
        n += items->items[i].question && strstr(items->items[i].question, "imange");
    }
    return n;
}
