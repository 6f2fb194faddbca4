/* Conversation templates against the prompts of LLaVA's conversation.py, and prompts cut at their images. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lm/prompt.h"

#define VICUNA                                                                                                         \
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "  \
    "and polite answers to the user's questions."
#define LLAVA                                                                                                          \
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, " \
    "and polite answers to the human's questions."
#define DEMO "USER: <image>\n{prompt} ASSISTANT:"

static void renders(const char *conversation, const char *request, size_t n_images, const char *expected) {
    char *text = NULL;
    candid_error error = {0};
    if (prompt_render(conversation, request, n_images, &text, &error) != CANDID_OK) {
        fail_msg("%s", error.message);
    }
    assert_string_equal(text, expected);
    free(text);
}

static void refuses(const char *conversation, const char *request, size_t n_images, const char *said) {
    char *text = NULL;
    candid_error error = {0};
    assert_int_equal(prompt_render(conversation, request, n_images, &text, &error), CANDID_ERROR_ARGUMENT);
    assert_int_equal(error.status, CANDID_ERROR_ARGUMENT);
    if (!strstr(error.message, said)) {
        fail_msg("\"%s\" does not say \"%s\"", error.message, said);
    }
    assert_null(strchr(error.message, '\n'));
    assert_null(text);
}

static void named_templates(void **state) {
    renders("vicuna_v1", "What is this?", 1, VICUNA " USER: <image>\nWhat is this? ASSISTANT:");
    renders("vicuna_v1", "Hello", 0, VICUNA " USER: Hello ASSISTANT:");
    renders("vicuna_v1", "Compare.", 2, VICUNA " USER: <image>\n<image>\nCompare. ASSISTANT:");
    renders("vicuna_v1", "", 1, VICUNA " USER: <image>\n ASSISTANT:");
    renders(NULL, "x", 1, VICUNA " USER: <image>\nx ASSISTANT:");
    renders("llava_v1", "What is this?", 1, LLAVA " USER: <image>\nWhat is this? ASSISTANT:");
    renders("llava_hf", "What?", 1, "USER: <image>\nWhat? ASSISTANT:");
    renders("mistral_instruct", "What?", 1, "[INST] <image>\nWhat? [/INST]");
    renders("plain", "", 1, "<image>\n");
    renders("plain", "Once", 1, "<image>\nOnce");
    renders("plain", "Once", 0, "Once");
    renders("plain", "", 0, "");
    assert_null(prompt_template_named("vicuna"));
    assert_null(prompt_template_named(""));
    const char *const *names = prompt_template_names();
    assert_string_equal(names[0], "vicuna_v1");
    int n = 0;
    for (; names[n]; n++) {
        assert_non_null(strstr(prompt_template_named(names[n]), "{prompt}"));
    }
    assert_int_equal(n, 5);
}

static void own_templates(void **state) {
    renders("Q: {prompt}\nA:", "why?", 0, "Q: why?\nA:");
    renders("Q: {prompt}\nA:", "why?", 1, "Q: <image>\nwhy?\nA:");
    renders("{prompt}", "a", 1, "<image>\na");
    /* the request's text is not a template */
    renders("Q: {prompt} A:", "say {prompt} {prompt}", 0, "Q: say {prompt} {prompt} A:");
    renders("Q: {prompt} A:", "{prompt}", 1, "Q: <image>\n{prompt} A:");
}

static void places_in_the_template(void **state) {
    renders(DEMO, "x", 1, "USER: <image>\nx ASSISTANT:");
    renders(DEMO, "x", 0, "USER: x ASSISTANT:");
    renders(DEMO, "x", 3, "USER: <image>\n<image>\n<image>\nx ASSISTANT:");
    renders("<image> {prompt}", "x", 2, "<image><image> x"); /* no newline there, none is made */
    renders("{prompt} <image>\n.", "x", 2, "x <image>\n<image>\n.");
    renders("{prompt} <image>", "x", 0, "x ");
    renders("a<image>\nb<image>\n{prompt}", "x", 2, "a<image>\nb<image>\nx");
    renders("a<image>\nb<image>\n{prompt}", "x", 0, "abx");
    refuses("a<image>\nb<image>\n{prompt}", "x", 1, "places (\"<image>\") for 2 images, 1 are given");
    refuses("a<image>\nb<image>\n{prompt}", "x", 3, "2 images, 3 are given");
}

static void places_in_the_request(void **state) {
    renders("Q: {prompt} A:", "first <image> then <image>!", 2, "Q: first <image> then <image>! A:");
    renders(DEMO, "see <image>", 1, "USER: see <image> ASSISTANT:");
    renders(NULL, "<image>\nWhat?", 1, VICUNA " USER: <image>\nWhat? ASSISTANT:");
    refuses("Q: {prompt} A:", "<image>", 0, "request");
    refuses("Q: {prompt} A:", "<image>", 2, "1 images, 2 are given");
    refuses(DEMO, "<image><image>", 1, "2 images, 1 are given");
}

static void bad_conversations(void **state) {
    /* taking places out, or putting the request in, must not make new ones */
    refuses("<im<image>age><im<image>age>{prompt}", "hi", 0, "places");
    refuses("<{prompt}>", "image", 0, "places");
    refuses("vicuna_v2", "x", 0, "vicuna_v2");
    refuses("vicuna_v2", "x", 0, "vicuna_v1, llava_v1, llava_hf, mistral_instruct, plain");
    refuses("vicuna_v2", "x", 0, "{prompt}");
    refuses("", "x", 0, "{prompt}");
    refuses("line\nwithout a hole and of a length that has to be cut somewhere: \xe2\x82\xac\xe2\x82\xac", "x", 0,
            "line ");
    refuses("{prompt}{prompt}", "x", 0, "more than once");
    refuses("{prompt}", "x", SIZE_MAX, "at most");
}

/* ---- tokenising ---- */

struct fixture {
    struct gguf *gguf;
    struct tokenizer *t;
};

static struct fixture trained(void) {
    struct fixture f = {0};
    assert_int_equal(gguf_open(TEST_DATA "/tokenizer.gguf", &f.gguf, NULL), CANDID_OK);
    assert_int_equal(tokenizer_create(f.gguf, &f.t, NULL), CANDID_OK);
    return f;
}

static void fixture_close(struct fixture *f) {
    tokenizer_free(f->t);
    gguf_close(f->gguf);
}

/* `parts`: the texts of the chunks, NULL for an image; the first must have BOS. */
static void tokenizes(const struct tokenizer *t, const char *text, const char *const *parts, size_t n_parts) {
    struct prompt prompt;
    struct token_list expected = {0};
    assert_int_equal(prompt_tokenize(t, text, &prompt, NULL), CANDID_OK);
    assert_int_equal(prompt.n_chunks, n_parts);
    int image = 0;
    for (size_t i = 0; i < n_parts; i++) {
        const struct prompt_chunk *chunk = &prompt.chunks[i];
        assert_int_equal(chunk->begin, expected.count);
        if (i == 0) {
            assert_int_equal(token_list_push(&expected, tokenizer_bos(t), NULL), CANDID_OK);
        }
        if (parts[i]) {
            assert_int_equal(tokenizer_encode(t, parts[i], strlen(parts[i]), true, true, &expected, NULL), CANDID_OK);
        }
        assert_int_equal(chunk->image, parts[i] ? -1 : image++);
        assert_int_equal(chunk->begin + chunk->count, expected.count);
    }
    assert_int_equal(prompt.tokens.count, expected.count);
    assert_memory_equal(prompt.tokens.ids, expected.ids, expected.count * sizeof *expected.ids);
    token_list_free(&expected);
    prompt_free(&prompt);
    assert_null(prompt.chunks);
}
#define TOKENIZES(t, text, ...)                                                                                        \
    tokenizes(t, text, (const char *const[]){__VA_ARGS__}, sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

static void chunks(void **state) {
    struct fixture f = trained();
    TOKENIZES(f.t, "What is this?", "What is this?");
    TOKENIZES(f.t, "USER: <image>\nWhat? ASSISTANT:", "USER: ", NULL, "\nWhat? ASSISTANT:");
    TOKENIZES(f.t, "<image>\nWhat?", "", NULL, "\nWhat?"); /* BOS makes the first chunk */
    TOKENIZES(f.t, "a<image><image>b", "a", NULL, NULL, "b");
    TOKENIZES(f.t, "a <image>", "a ", NULL);
    TOKENIZES(f.t, "<image>", "", NULL);
    TOKENIZES(f.t, "", "");
    TOKENIZES(f.t, "<imag<image>e>", "<imag", NULL, "e>");
    fixture_close(&f);
}

static void known_ids(void **state) {
    struct fixture f = trained();
    struct prompt prompt;
    char piece[16];
    assert_int_equal(prompt_tokenize(f.t, "a<image>\nb</s>", &prompt, NULL), CANDID_OK);
    /* <s> "▁a" | image | "▁" "\n" "b" </s>: the text after an image begins with a space of its own */
    assert_int_equal(prompt.n_chunks, 3);
    assert_int_equal(prompt.chunks[0].count, 2);
    assert_int_equal(prompt.chunks[1].image, 0);
    assert_int_equal(prompt.chunks[2].begin, 2);
    assert_int_equal(prompt.tokens.ids[0], 1);
    static const char *const texts[] = {"", " a", " ", "\n", "b", ""};
    assert_int_equal(prompt.tokens.count, sizeof texts / sizeof *texts);
    for (size_t i = 0; i < prompt.tokens.count; i++) {
        const size_t n = tokenizer_piece(f.t, prompt.tokens.ids[i], false, piece, sizeof piece);
        assert_int_equal(n, strlen(texts[i]));
        assert_memory_equal(piece, texts[i], n);
    }
    assert_int_equal(prompt.tokens.ids[5], tokenizer_eos(f.t));
    prompt_free(&prompt);
    prompt_free(NULL);
    fixture_close(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(named_templates),
        cmocka_unit_test(own_templates),
        cmocka_unit_test(places_in_the_template),
        cmocka_unit_test(places_in_the_request),
        cmocka_unit_test(bad_conversations),
        cmocka_unit_test(chunks),
        cmocka_unit_test(known_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
