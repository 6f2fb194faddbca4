/*
 * Captions an image with libcandid: everything a host application needs.
 *
 *     cc embed.c $(pkg-config --cflags --libs candid) -o embed
 *     ./embed MODEL.gguf IMAGE [QUESTION]
 */
#include <candid/candid.h>

#include <stdio.h>

static bool print_piece(void *user_data, const char *text, size_t size) {
    (void)user_data;
    fwrite(text, 1, size, stdout);
    fflush(stdout);
    return true; /* false would stop the answer here */
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: %s MODEL.gguf IMAGE [QUESTION]\n", argv[0]);
        return 2;
    }
    const char *question = argc > 3 ? argv[3] : "Please help me describe the image in detail.";
    candid_error error = {.status = CANDID_OK};
    candid_model *model = NULL;
    candid_context *context = NULL;
    candid_image *image = NULL;
    const candid_result *result = NULL;

    candid_generate_params params = candid_generate_params_default();
    params.on_text = print_piece;

    const candid_image *images[1];
    int code = 1;
    if (candid_model_open(argv[1], NULL, &model, &error) == CANDID_OK &&
        candid_context_create(model, NULL, &context, &error) == CANDID_OK &&
        candid_image_load(argv[2], &image, &error) == CANDID_OK) {
        images[0] = image;
        if (candid_generate(context, images, 1, question, &params, &result, &error) == CANDID_OK) {
            printf("\n(%zu tokens)\n", result->n_tokens);
            code = 0;
        }
    }
    if (code != 0) {
        fprintf(stderr, "%s: %s\n", candid_status_name(error.status), error.message);
    }
    candid_result_free(result);
    candid_image_free(image);
    candid_context_free(context);
    candid_model_free(model);
    return code;
}
