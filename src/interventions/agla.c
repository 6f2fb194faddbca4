/*
 * AGLA: the logits for an image in which only the relevant region is left are added to those for the whole image.
 *
 * An et al.: Mitigating Object Hallucinations in Large Vision-Language Models with Assembly of Global and Local
 * Attention, CVPR 2025, arXiv 2406.12718; code Lackel/AGLA. There an image-text matching model (BLIP) finds the region.
 * Here it comes from a map in a file or, our variant, from the attention that the model itself pays to the image when
 * it reads the question. The released program adds the second image to the first token only: later ones are 1 + alpha
 * times the plain logits.
 */
#include <string.h>

#include "core/status.h"
#include "interventions/branch.h"

static const char *const maps[] = {"self", "file", NULL};
static const char *const geometries[] = {"native", "squash", NULL};

static candid_status branches(const struct settings *s, struct branch_list *list, candid_error *error) {
    const bool from_file = strcmp(setting_string(s, "map"), "file") == 0;
    struct branch *b = NULL;
    TRY(branch_add(list, "masked image", &b, error));
    b->sight = SIGHT_MASKED;
    b->path = setting_string(s, "file");
    if (from_file != (b->path != NULL)) {
        return fail(error, CANDID_ERROR_ARGUMENT, "agla: expected %s",
                    from_file ? "agla.file with agla.map \"file\"" : "agla.map \"file\" with agla.file");
    }
    b->settings = *s;
    b->weight = setting_float(s, "alpha");
    b->added = true;
    b->cutoff = setting_float(s, "beta");
    b->n_tokens = setting_bool(s, "first_token_only") ? 1 : 0;
    return CANDID_OK;
}

static const struct method_option options[] = {
    {"alpha", OPTION_FLOAT, "2", NULL, NULL, 0, 100, NULL,
     "Logits become those of the image plus alpha times those of the masked image."},
    {"beta", OPTION_FLOAT, "0.5", NULL, NULL, 0, 1, NULL,
     "Tokens less probable than beta times the most probable one are cut off."},
    {"map", OPTION_CHOICE, "\"self\"", NULL, NULL, 0, 0, maps,
     "Where the relevance of image regions comes from: self, the attention of the question's last token to the image "
     "(candid's variant), or file. The paper uses gradients of a matching model, BLIP-ITM."},
    {"file", OPTION_PATH, "null", NULL, NULL, 0, 0, NULL,
     "An image of the map, bright where relevant, stretched over the whole picture."},
    {"layers", OPTION_LAYERS, "\"auto\"", NULL, NULL, 0, 0, NULL,
     "self: layers whose attention is averaged; auto: the middle third."},
    {"keep", OPTION_FLOAT, "0.85", NULL, NULL, 0, 1, NULL,
     "Share of the pixels that stay. The paper takes 1 - s / 2 of the matching score s; 0.85 is s = 0.3."},
    {"geometry", OPTION_CHOICE, "\"native\"", NULL, "\"squash\"", 0, 0, geometries,
     "native: the picture keeps its shape; squash: it becomes a square first, as in the released program."},
    OPTION_FIRST_TOKEN_ONLY,
};

const struct method method_agla = {
    .name = "agla",
    .title = "Assembly of global and local attention (AGLA)",
    .kind = METHOD_CONTRAST,
    .edits = "logits: those for the image with irrelevant regions black are added",
    .cost = "one more image encoding and prompt (with map self two), one more row in every step",
    .citation =
        "An et al.: Mitigating Object Hallucinations in Large "
        "Vision-Language Models with Assembly of Global and Local Attention. CVPR 2025, arXiv 2406.12718. Code: "
        "Lackel/AGLA",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .branches = branches,
};
