/*
 * ViCrop and CARVE: the model's own attention, for the question and for a general request, tells which part of the
 * image the question is about; that part becomes a second image and the question is asked again.
 *
 * Zhang et al.: MLLMs Know Where to Look, ICLR 2025, arXiv 2502.17422; code saccharomycetes/mllms_know (relative
 * attention). Ge et al.: Focusing by Contrastive Attention, arXiv 2509.06461; code YuyaoGe/CARVE.
 */
#include "interventions/look_twice.h"

#include <string.h>

#include "core/status.h"

#define GENERAL "\"Write a general description of the image.\""

static const char *const geometries[] = {"view", "whole", NULL};
static const char *const images[] = {"both", "refined", NULL};
static const char *const weights[] = {"linear", "first", NULL};

static const struct method_option vicrop_options[] = {
    {"layers", OPTION_LAYERS, "\"auto\"", "\"14\"", "\"14\"", 0, 0, NULL,
     "Layer whose attention tells, or several whose mean does. auto: the one at 14/32 of the depth, which is 14 in "
     "LLaVA-1.5-7B; the authors find that any middle layer does."},
    {"general", OPTION_TEXT, GENERAL, NULL, NULL, 0, 0, NULL,
     "The request whose attention the question's is divided by."},
    {"geometry", OPTION_CHOICE, "\"view\"", NULL, "\"whole\"", 0, 0, geometries,
     "view: the map covers what the encoder saw of the image; whole: it is taken to cover the image, as the released "
     "program does although its preprocessing crops."},
    {"images", OPTION_CHOICE, "\"both\"", NULL, NULL, 0, 0, images,
     "What the second question shows: both images, or only the refined one."},
};

const struct method method_vicrop = {
    .name = "vicrop",
    .title = "Crop where the question looks (ViCrop)",
    .kind = METHOD_SECOND_LOOK,
    .edits = "image: a crop around what the question attends to is shown as a second image",
    .cost = "two prompts to find the crop, then one with twice the image tokens",
    .citation = "Zhang, Khayatkhoei, Chhikara, Ilievski: MLLMs Know Where to Look: Training-free Perception of Small "
                "Visual Details with Multimodal LLMs. ICLR 2025, arXiv 2502.17422. Code: saccharomycetes/mllms_know",
    .per_question = true,
    .options = vicrop_options,
    .n_options = sizeof vicrop_options / sizeof *vicrop_options,
};

static const struct method_option carve_options[] = {
    {"layers", OPTION_LAYERS, "\"auto\"", "\"20-25\"", "\"20-25\"", 0, 0, NULL,
     "Layers whose maps are added. auto: from 20/32 to 25/32 of the depth."},
    {"general", OPTION_TEXT, GENERAL, NULL, NULL, 0, 0, NULL,
     "The request whose attention the question's is divided by, token by token."},
    {"steps", OPTION_INT, "32", NULL, NULL, 1, 1024, NULL, "Tokens answered to each at most."},
    {"weights", OPTION_CHOICE, "\"linear\"", NULL, NULL, 0, 0, weights,
     "How tokens count: the t-th t times, or only the first."},
    {"top", OPTION_FLOAT, "0.2", NULL, NULL, 0.001, 1, NULL,
     "Share of the pixels that may stay, and of their regions that do."},
    {"regions", OPTION_INT, "3", NULL, NULL, 1, 1000, NULL, "Regions kept at least."},
    {"geometry", OPTION_CHOICE, "\"view\"", NULL, "\"whole\"", 0, 0, geometries,
     "view: the map covers what the encoder saw of the image; whole: it is taken to cover the image."},
    {"images", OPTION_CHOICE, "\"both\"", "\"refined\"", "\"both\"", 0, 0, images,
     "What the last question shows: both images (the released program), or only the refined one (the paper)."},
};

const struct method method_carve = {
    .name = "carve",
    .title = "Focusing by contrastive attention (CARVE)",
    .kind = METHOD_SECOND_LOOK,
    .edits = "image: what the question attends to more than a general request does is shown as a second image",
    .cost = "two short answers to find the regions, then a prompt with twice the image tokens",
    .citation =
        "Ge et al.: Focusing by Contrastive Attention: Enhancing VLMs' Visual Reasoning. arXiv 2509.06461. Code: "
        "YuyaoGe/CARVE",
    .per_question = true,
    .options = carve_options,
    .n_options = sizeof carve_options / sizeof *carve_options,
};

static bool says(const struct settings *s, const char *option, const char *value) {
    return strcmp(setting_string(s, option), value) == 0;
}

candid_status look_options_from(const struct candid_config *config, struct look_options *out, candid_error *error) {
    struct settings vicrop, carve;
    const bool first = config_method(config, &method_vicrop, &vicrop),
               second = config_method(config, &method_carve, &carve);
    *out = (struct look_options){0};
    if (first && second) {
        return fail(error, CANDID_ERROR_ARGUMENT, "vicrop and carve exclude each other: both make the second image");
    }
    if (!first && !second) {
        return CANDID_OK;
    }
    const struct settings *s = first ? &vicrop : &carve;
    *out = (struct look_options){
        .kind = first ? LOOK_VICROP : LOOK_CARVE,
        .method = first ? &method_vicrop : &method_carve,
        .layers = setting_string(s, "layers"),
        .general = setting_string(s, "general"),
        .whole_geometry = says(s, "geometry", "whole"),
        .refined_alone = says(s, "images", "refined"),
    };
    if (second) {
        out->steps = setting_int(s, "steps");
        out->first_step_only = says(s, "weights", "first");
        out->top_share = setting_float(s, "top");
        out->min_regions = setting_int(s, "regions");
    }
    return CANDID_OK;
}
