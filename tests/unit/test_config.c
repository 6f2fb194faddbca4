/* Configurations: what is accepted, what each error says and where, presets, assignments, and the methods' tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "../example_methods.h"
#include "interventions/config.h"
#include "interventions/option.h"
#include "interventions/schema.h"

static struct candid_config *parse(const char *text) {
    struct candid_config *c = NULL;
    candid_error error = {0};
    if (config_parse(example_methods, text, strlen(text), "test.json", ".", &c, &error) != CANDID_OK) {
        fail_msg("%s", error.message);
    }
    return c;
}

static void set(struct candid_config *c, const char *assignment) {
    candid_error error = {0};
    if (config_assign(c, assignment, &error) != CANDID_OK) {
        fail_msg("%s", error.message);
    }
}

static void check_resolved(const struct candid_config *c, const char *expected) {
    cJSON *all = config_resolved(c);
    char *text = cJSON_PrintUnformatted(all);
    assert_string_equal(text, expected);
    cJSON_free(text);
    cJSON_Delete(all);
}

#define ALPHA_RECOMMENDED "{\"rho\":0.5,\"count\":3,\"renormalize\":true,\"where\":\"last\",\"layers\":\"2-\"}"
#define ALPHA_PAPER       "{\"rho\":0.9,\"count\":5,\"renormalize\":true,\"where\":\"last\",\"layers\":\"5-18\"}"
#define ALPHA_CODE        "{\"rho\":0.8,\"count\":3,\"renormalize\":false,\"where\":\"all\",\"layers\":\"2-\"}"
#define BETA_RECOMMENDED  "{\"layers\":\"auto\",\"sinks\":null,\"heads\":null,\"vectors\":null,\"scale\":1}"

static void resolving(void **state) {
    static const struct {
        const char *text, *expected;
    } cases[] = {
        {"{}", "{}"},
        {"\xEF\xBB\xBF {} \n", "{}"},
        {"{\"comment\": \"c\", \"source\": \"s\", \"name\": \"n\", \"$schema\": \"x\"}", "{}"},
        {"{\"alpha\": true}", "{\"alpha\":" ALPHA_RECOMMENDED "}"},
        {"{\"alpha\": {}}", "{\"alpha\":" ALPHA_RECOMMENDED "}"},
        {"{\"alpha\": false}", "{}"},
        {"{\"alpha\": {\"enabled\": false, \"rho\": 0.1}}", "{}"},
        {"{\"alpha\": {\"rho\": 0.1, \"enabled\": true, \"comment\": \"c\", \"source\": \"s\"}, \"plain\": true}",
         "{\"alpha\":{\"rho\":0.1,\"count\":3,\"renormalize\":true,\"where\":\"last\",\"layers\":\"2-\"},\"plain\":{}"
         "}"},
        {"{\"alpha\": {\"preset\": \"recommended\"}}", "{\"alpha\":" ALPHA_RECOMMENDED "}"},
        {"{\"alpha\": {\"preset\": \"paper\"}}", "{\"alpha\":" ALPHA_PAPER "}"},
        {"{\"alpha\": {\"preset\": \"code\"}}", "{\"alpha\":" ALPHA_CODE "}"},
        {"{\"alpha\": {\"layers\": \"1,18-31\", \"rho\": 1, \"preset\": \"code\"}}",
         "{\"alpha\":{\"rho\":1,\"count\":3,\"renormalize\":false,\"where\":\"all\",\"layers\":\"1,18-31\"}}"},
        /* in the table's order, whatever the file's */
        {"{\"beta_two\": true, \"alpha\": true}",
         "{\"alpha\":" ALPHA_RECOMMENDED ",\"beta_two\":" BETA_RECOMMENDED "}"},
        {"{\"beta_two\": {\"layers\": \"all\", \"sinks\": [], \"heads\": [[1, 2], [31, 0]], \"vectors\": \"a.gguf\", "
         "\"scale\": 1e300}}",
         "{\"beta_two\":{\"layers\":\"all\",\"sinks\":[],\"heads\":[[1,2],[31,0]],\"vectors\":\"a.gguf\",\"scale\":1e+"
         "300}}"},
        {"{\"beta_two\": {\"preset\": \"paper\"}}",
         "{\"beta_two\":{\"layers\":\"auto\",\"sinks\":[1415,2533],\"heads\":null,\"vectors\":null,\"scale\":1}}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct candid_config *c = parse(cases[i].text);
        check_resolved(c, cases[i].expected);
        struct candid_config *again = parse(cases[i].expected); /* what is resolved is a configuration */
        check_resolved(again, cases[i].expected);
        assert_int_equal(config_checksum(c), config_checksum(again));
        config_free(again);
        config_free(c);
    }
    config_free(NULL);
}

static void values(void **state) {
    struct candid_config *c = parse("{\"alpha\": {\"rho\": 0.25}, \"beta_two\": {\"sinks\": [4, 5]}}");
    struct settings s;
    assert_true(config_method(c, &alpha_method, &s));
    assert_true(setting_float(&s, "rho") == 0.25f);
    assert_int_equal(setting_int(&s, "count"), 3);
    assert_true(setting_bool(&s, "renormalize"));
    assert_string_equal(setting_string(&s, "layers"), "2-");
    assert_string_equal(setting_string(&s, "where"), "last");
    assert_string_equal(s.folder, ".");
    assert_null(setting_list(&s, "layers"));
    assert_null(setting_string(&s, "none"));
    assert_int_equal(setting_int(&s, "none"), 0);
    assert_false(setting_bool(&s, "none"));
    assert_true(setting_float(&s, "none") == 0.0f);
    assert_true(config_method(c, &beta_method, &s));
    assert_null(setting_string(&s, "vectors"));
    assert_null(setting_list(&s, "heads"));
    assert_int_equal(cJSON_GetArraySize(setting_list(&s, "sinks")), 2);
    assert_false(config_method(c, &plain_method, &s));
    assert_false(config_method(NULL, &plain_method, &s));
    assert_int_equal(config_checksum(NULL), 0);
    config_free(c);
}

/* Status and whole message of text that is refused. */
static void bad_text(void **state) {
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"", "t.json: expected a configuration of 1 to 1048576 bytes, found 0"},
        {"[1]", "t.json: expected a JSON object, found an array"},
        {"{\n\"alpha\": true,\n}", "t.json:3: expected valid JSON, found an error near byte 17 of 18"},
        {"{\n\"alpha\": tru\n}", "t.json:2: expected valid JSON, found an error near byte 11 of 16"},
        {"{}\n\n x", "t.json:3: expected valid JSON, found an error near byte 5 of 6"},
        {"{\n\n\"alhpa\": true}", "t.json:3: key alhpa: there is no such method; did you mean \"alpha\"?"},
        {"{\"BETA-two\": 1}", "t.json:1: key BETA-two: there is no such method; did you mean \"beta_two\"?"},
        {"{\"coment\": 1}", "t.json:1: key coment: there is no such method; did you mean \"comment\"?"},
        {"{\"comment\": \"\",\n \"x\\ny\": 1}",
         "t.json:2: key x?y: there is no such method; methods are alpha, beta_two, plain"},
        {"{\"decode\": {}}", "t.json:1: key decode: there is no such method; methods are alpha, beta_two, plain"},
        {"{\n\"comment\": [\"x\"]}", "t.json:2: key comment: expected a string, found an array"},
        {"{\"alpha\":\n1}", "t.json:1: key alpha: expected true, false or an object of options, found number 1"},
        {"{\"alpha\": null}", "t.json:1: key alpha: expected true, false or an object of options, found null"},
        {"{\"alpha\": true,\n\"plain\": true,\n\"alpha\": true}",
         "t.json:3: key alpha: expected once, found again (first in line 1)"},
        {"{\"alpha\": {\"rho\": 0.1,\n\"count\": 2,\n\n\"rho\": 0.1}}",
         "t.json:4: key alpha.rho: expected once, found again (first in line 1)"},
        {"{\"plain\": {},\n \"alpha\": {\n  \"count\": 2,\n  \"roh\": 0.1}}",
         "t.json:4: key alpha.roh: alpha has no such option; did you mean \"rho\"?"},
        {"{\"alpha\": {\"enable\": true}}",
         "t.json:1: key alpha.enable: alpha has no such option; did you mean \"enabled\"?"},
        {"{\"alpha\": {\"strength\": 1}}",
         "t.json:1: key alpha.strength: alpha has no such option; expected one of rho, "
         "count, renormalize, where, layers, preset or enabled"},
        {"{\"plain\": {\"strength\": 1}}",
         "t.json:1: key plain.strength: plain has no such option; expected one of preset or enabled"},
        {"{\"alpha\": {\"rho\": \"0.1\"}}",
         "t.json:1: key alpha.rho: expected a number from 0 to 1, found string \"0.1\""},
        {"{\"alpha\":\n {\"rho\":\n 1.5}}", "t.json:2: key alpha.rho: expected a number from 0 to 1, found number 1.5"},
        {"{\"alpha\": {\"rho\": -1e-9}}",
         "t.json:1: key alpha.rho: expected a number from 0 to 1, found number -1e-09"},
        {"{\"alpha\": {\"rho\": null}}", "t.json:1: key alpha.rho: expected a number from 0 to 1, found null"},
        {"{\"beta_two\": {\"scale\": -1}}",
         "t.json:1: key beta_two.scale: expected a number of at least 0, found number -1"},
        {"{\"beta_two\": {\"scale\": 1e999}}",
         "t.json:1: key beta_two.scale: expected a number of at least 0, found number inf"},
        {"{\"alpha\": {\"count\": 2.5}}",
         "t.json:1: key alpha.count: expected an integer from 1 to 20, found number 2.5"},
        {"{\"alpha\": {\"count\": 0}}", "t.json:1: key alpha.count: expected an integer from 1 to 20, found number 0"},
        {"{\"alpha\": {\"count\": 1e18}}",
         "t.json:1: key alpha.count: expected an integer from 1 to 20, found number 1e+18"},
        {"{\"alpha\": {\"renormalize\": 1}}",
         "t.json:1: key alpha.renormalize: expected true or false, found number 1"},
        {"{\"alpha\": {\"where\": \"first\"}}",
         "t.json:1: key alpha.where: expected \"last\", \"all\" or \"7\", found string \"first\""},
        {"{\"alpha\": {\"where\": 7}}",
         "t.json:1: key alpha.where: expected \"last\", \"all\" or \"7\", found number 7"},
        {"{\"alpha\": {\"layers\": \"auto\"}}",
         "t.json:1: key alpha.layers: expected layers as text like \"5\", \"2-\", "
         "\"1,5-18\" or \"all\", found string \"auto\""},
        {"{\"beta_two\": {\"layers\": 5}}",
         "t.json:1: key beta_two.layers: expected layers as text like \"5\", \"2-\", \"1,5-18\", \"all\" or \"auto\", "
         "found number 5"},
        {"{\"beta_two\": {\"sinks\": {\"a\": \"b\"}}}",
         "t.json:1: key beta_two.sinks: expected a list of integers from 0 to 10000 or null, found an object"},
        {"{\"beta_two\": {\"sinks\": [1,\n2,\n-3]}}",
         "t.json:3: key beta_two.sinks[2]: expected an integer from 0 to 10000, found number -3"},
        {"{\"beta_two\": {\"heads\": [[1,2],\n[3]]}}",
         "t.json:2: key beta_two.heads[1]: expected a pair [layer, head] of integers from 0 to 9999, found an array"},
        {"{\"beta_two\": {\"heads\": [[1,-2]]}}",
         "t.json:1: key beta_two.heads[0]: expected a pair [layer, head] of integers from 0 to 9999, found an array"},
        {"{\"beta_two\": {\"heads\": \"1\"}}",
         "t.json:1: key beta_two.heads: expected a list of pairs [layer, head] of "
         "integers from 0 to 9999, or null, found string \"1\""},
        {"{\"beta_two\": {\"vectors\": \"\"}}",
         "t.json:1: key beta_two.vectors: expected a file name or null, found string \"\""},
        {"{\"alpha\": {\n\"preset\": \"papers\"}}",
         "t.json:2: key alpha.preset: expected \"recommended\", \"paper\" or \"code\", found string \"papers\""},
        {"{\"alpha\": {\"preset\": true}}",
         "t.json:1: key alpha.preset: expected \"recommended\", \"paper\" or \"code\", found true"},
        {"{\"alpha\": {\"enabled\": 0}}", "t.json:1: key alpha.enabled: expected true or false, found number 0"},
        {"{\"alpha\": {\"comment\": 0}}", "t.json:1: key alpha.comment: expected a string, found number 0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct candid_config *c = NULL;
        candid_error error = {0};
        assert_int_equal(config_parse(example_methods, cases[i].text, strlen(cases[i].text), "t.json", ".", &c, &error),
                         CANDID_ERROR_FORMAT);
        assert_string_equal(error.message, cases[i].message);
        assert_int_equal(error.status, CANDID_ERROR_FORMAT);
        assert_null(c);
        assert_int_equal(config_parse(example_methods, cases[i].text, strlen(cases[i].text), "t.json", ".", &c, NULL),
                         CANDID_ERROR_FORMAT);
    }
}

static void assigning(void **state) {
    static const struct {
        const char *assignments[4], *expected;
    } cases[] = {
        {{"alpha=true"}, "{\"alpha\":" ALPHA_RECOMMENDED "}"},
        {{"alpha.preset=code"}, "{\"alpha\":" ALPHA_CODE "}"},
        {{"alpha.preset=\"code\""}, "{\"alpha\":" ALPHA_CODE "}"},
        {{"alpha=true", "alpha=false"}, "{}"},
        {{"alpha.enabled=false"}, "{}"},
        {{"alpha.enabled=false", "alpha.rho=0.5"}, "{\"alpha\":" ALPHA_RECOMMENDED "}"},
        {{"alpha.rho=0.25", "alpha.layers=1,18-31", "alpha.where=7", "alpha.preset=paper"},
         "{\"alpha\":{\"rho\":0.25,\"count\":5,\"renormalize\":true,\"where\":\"7\",\"layers\":\"1,18-31\"}}"},
        {{"alpha.rho=0.25", "alpha=false", "alpha=true"},
         "{\"alpha\":{\"rho\":0.25,\"count\":3,\"renormalize\":true,\"where\":\"last\",\"layers\":\"2-\"}}"},
        {{"alpha.layers=7"},
         "{\"alpha\":{\"rho\":0.5,\"count\":3,\"renormalize\":true,\"where\":\"last\",\"layers\":\"7\"}}"},
        {{"alpha={\"rho\":0.1, \"preset\": \"code\"}", "alpha.rho=0.8"}, "{\"alpha\":" ALPHA_CODE "}"},
        {{"beta_two.vectors=a=b.gguf", "beta_two.heads=[[0,1]]", "beta_two.sinks=[3]"},
         "{\"beta_two\":{\"layers\":\"auto\",\"sinks\":[3],\"heads\":[[0,1]],\"vectors\":\"a=b.gguf\",\"scale\":1}}"},
        {{"beta_two.vectors=17", "beta_two.vectors=null"}, "{\"beta_two\":" BETA_RECOMMENDED "}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct candid_config *c = parse("{}");
        for (int k = 0; k < 4 && cases[i].assignments[k]; k++) {
            set(c, cases[i].assignments[k]);
        }
        check_resolved(c, cases[i].expected);
        config_free(c);
    }
    /* a file's values stay when the preset changes, and the checksum follows every change */
    struct candid_config *c = parse("{\"alpha\": {\"rho\": 0.25, \"preset\": \"paper\"}}");
    const uint32_t before = config_checksum(c);
    set(c, "alpha.preset=code");
    check_resolved(c,
                   "{\"alpha\":{\"rho\":0.25,\"count\":3,\"renormalize\":false,\"where\":\"all\",\"layers\":\"2-\"}}");
    assert_int_not_equal(config_checksum(c), before);
    set(c, "alpha.preset=paper");
    assert_int_equal(config_checksum(c), before);
    assert_int_not_equal(before, 0);
    set(c, "alpha=false");
    assert_int_equal(config_checksum(c), 0);
    config_free(c);
}

static void bad_assignments(void **state) {
    static const struct {
        const char *assignment, *message;
    } cases[] = {
        {"", "assignment \"\": expected METHOD.OPTION=VALUE, METHOD=true or METHOD=false"},
        {"alpha", "assignment \"alpha\": expected METHOD.OPTION=VALUE, METHOD=true or METHOD=false"},
        {"=1", "assignment \"=1\": expected METHOD.OPTION=VALUE, METHOD=true or METHOD=false"},
        {"aplha=true", "assignment \"aplha=true\": key aplha: there is no such method; did you mean \"alpha\"?"},
        {"alpha=yes",
         "assignment \"alpha=yes\": key alpha: expected true, false or an object of options, found string \"yes\""},
        {"alpha=", "assignment \"alpha=\": key alpha: expected true, false or an object of options, found string \"\""},
        {"alpha.rho=2", "assignment \"alpha.rho=2\": key alpha.rho: expected a number from 0 to 1, found number 2"},
        {"alpha.rho=much",
         "assignment \"alpha.rho=much\": key alpha.rho: expected a number from 0 to 1, found string \"much\""},
        {"alpha.rho=", "assignment \"alpha.rho=\": key alpha.rho: expected a number from 0 to 1, found string \"\""},
        {"alpha.roh=1", "assignment \"alpha.roh=1\": key alpha.roh: alpha has no such option; did you mean \"rho\"?"},
        {"alpha.=1", "assignment \"alpha.=1\": key alpha.: alpha has no such option; expected one of rho, count, "
                     "renormalize, where, layers, preset or enabled"},
        {"alpha.preset=best", "assignment \"alpha.preset=best\": key alpha.preset: expected \"recommended\", \"paper\" "
                              "or \"code\", found string \"best\""},
        {"alpha.layers=5-2", "assignment \"alpha.layers=5-2\": key alpha.layers: expected layers as text like \"5\", "
                             "\"2-\", \"1,5-18\" or \"all\", found string \"5-2\""},
        {"alpha={\"rho\": 0.1, \"count\": 0}", "assignment \"alpha={\"rho\": 0.1, \"count\": 0}\": key alpha.count: "
                                               "expected an integer from 1 to 20, found number 0"},
        {"alpha={\"rho\": 0.1, \"rho\": 0.1}", "assignment \"alpha={\"rho\": 0.1, \"rho\": 0.1}\": key alpha.rho: "
                                               "expected once, found again"},
    };
    struct candid_config *c = parse("{\"alpha\": {\"rho\": 0.9, \"preset\": \"paper\"}}");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        candid_error error = {0};
        assert_int_equal(config_assign(c, cases[i].assignment, &error), CANDID_ERROR_ARGUMENT);
        assert_string_equal(error.message, cases[i].message);
        check_resolved(c, "{\"alpha\":" ALPHA_PAPER "}"); /* as it was */
    }
    config_free(c);
}

static void write_file(const char *path, const char *text) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fputs(text, f) >= 0 && fclose(f) == 0, 1);
}

static void files(void **state) {
    char work[] = "/tmp/candid-test-config-XXXXXX", path[120], here[4096], expected[4200];
    assert_non_null(mkdtemp(work));
    snprintf(path, sizeof path, "%s/c.json", work);
    write_file(path, "{\n  \"beta_two\": {\"vectors\": \"v.gguf\"}\n}\n");
    struct candid_config *c = NULL;
    candid_error error = {0};
    struct settings s;
    assert_int_equal(config_load(example_methods, path, &c, NULL), CANDID_OK);
    assert_true(config_method(c, &beta_method, &s));
    assert_string_equal(s.folder, work);
    assert_string_equal(setting_string(&s, "vectors"), "v.gguf");
    set(c, "beta_two.vectors=w.gguf"); /* relative to the current directory, not to the file's */
    assert_true(config_method(c, &beta_method, &s));
    assert_non_null(getcwd(here, sizeof here));
    snprintf(expected, sizeof expected, "%s/w.gguf", here);
    assert_string_equal(setting_string(&s, "vectors"), expected);
    set(c, "beta_two.vectors=/x.gguf");
    assert_true(config_method(c, &beta_method, &s));
    assert_string_equal(setting_string(&s, "vectors"), "/x.gguf");
    config_free(c);

    write_file(path, "{\n  \"alpha\": {\n    \"rho\": 7\n  }\n}\n");
    assert_int_equal(config_load(example_methods, path, &c, &error), CANDID_ERROR_FORMAT);
    snprintf(expected, sizeof expected, "%s:3: key alpha.rho: expected a number from 0 to 1, found number 7", path);
    assert_string_equal(error.message, expected);
    write_file(path, "");
    assert_int_equal(config_load(example_methods, path, &c, &error), CANDID_ERROR_FORMAT);
    remove(path);
    assert_int_equal(config_load(example_methods, path, &c, &error), CANDID_ERROR_IO);
    assert_non_null(strstr(error.message, path));
    assert_int_equal(config_load(example_methods, work, &c, &error), CANDID_ERROR_IO);
    rmdir(work);
}

static int count_layers(const char *text, int n_layer) {
    bool out[64];
    candid_error error = {0};
    const int n = layers_select(text, n_layer, out, "alpha", &error);
    int on = 0;
    for (int l = 0; l < n_layer && n >= 0; l++) {
        on += out[l];
    }
    assert_true(n == -1 ? error.status == CANDID_ERROR_ARGUMENT : n == on);
    return n;
}

static void layers(void **state) {
    static const char *const good[] = {"0", "5", "2-", "5-18", "1,18-31", "all", "3-3", "9999", "0-9999", "1,1,1-1"};
    static const char *const bad[] = {"",    "-",   "-3",    "5-2",   "1,",    ",1",   "1,,2",    "a",   "1 ", "2--",
                                      "2-x", "ALL", "1-2-3", "99999", "all,1", "auto", "1-99999", "0x1", "+1"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_true(layers_valid(good[i]));
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_false(layers_valid(bad[i]));
        assert_int_equal(count_layers(bad[i], 32), -1);
    }
    assert_int_equal(count_layers("all", 32), 32);
    assert_int_equal(count_layers("2-", 32), 30);
    assert_int_equal(count_layers("5-18", 32), 14);
    assert_int_equal(count_layers("5-18", 8), 3);
    assert_int_equal(count_layers("1,18-31", 32), 15);
    assert_int_equal(count_layers("1,18-40", 24), 7);
    assert_int_equal(count_layers("40-", 32), 0);
    assert_int_equal(count_layers("0,31,0-1", 32), 3);
    bool out[8];
    assert_int_equal(layers_select("1,3-4", 6, out, "alpha", NULL), 3);
    assert_true(!out[0] && out[1] && !out[2] && out[3] && out[4] && !out[5]);
    candid_error error = {0};
    assert_int_equal(layers_select("1,6", 6, out, "alpha", &error), -1);
    assert_string_equal(error.message, "alpha: layer 6 of \"1,6\" does not exist: the model has 6 layers, 0 to 5");
}

/* Every table keeps to the rules; so does this build's. */
static void tables(void **state) {
    candid_error error = {0};
    if (methods_check(example_methods, &error) != CANDID_OK || methods_check(methods, &error) != CANDID_OK) {
        fail_msg("%s", error.message);
    }
    static const struct {
        struct method_option option;
        const char *part;
    } cases[] = {
        {{.name = "preset", .type = OPTION_BOOL, .recommended = "true", .doc = "d"}, "taken"},
        {{.name = "Rho", .type = OPTION_BOOL, .recommended = "true", .doc = "d"}, "no key"},
        {{.name = "a", .type = OPTION_BOOL, .recommended = "true"}, "doc"},
        {{.name = "a", .type = OPTION_BOOL, .recommended = "yes", .doc = "d"}, "recommended default"},
        {{.name = "a", .type = OPTION_INT, .recommended = "1", .doc = "d"}, "min below max"},
        {{.name = "a", .type = OPTION_INT, .recommended = "1", .paper = "9", .max = 3, .doc = "d"}, "paper default"},
        {{.name = "a", .type = OPTION_CHOICE, .recommended = "1", .doc = "d"}, "choices"},
        {{.name = "a", .type = OPTION_LAYERS, .recommended = "\"2-\"", .code = "\"-2\"", .doc = "d"}, "code default"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct method m = alpha_method;
        m.options = &cases[i].option;
        m.n_options = 1;
        const struct method *const table[] = {&plain_method, &m, NULL};
        assert_int_equal(methods_check(table, &error), CANDID_ERROR_INTERNAL);
        assert_non_null(strstr(error.message, cases[i].part));
    }
    const struct method *const twice[] = {&plain_method, &plain_method, NULL};
    assert_int_equal(methods_check(twice, &error), CANDID_ERROR_INTERNAL);
}

static void check_has(const char *text, const char *const *parts) {
    for (; *parts; parts++) {
        if (!strstr(text, *parts)) {
            fail_msg("expected \"%s\" in:\n%s", *parts, text);
        }
    }
}

static void schema(void **state) {
    char *text = NULL;
    assert_int_equal(schema_create(example_methods, &text, NULL), CANDID_OK);
    cJSON *root = cJSON_Parse(text);
    assert_non_null(root);
    char *flat = cJSON_PrintUnformatted(root);
    static const char *const parts[] = {
        "\"rho\":{\"description\":\"Share of heads.\",\"type\":\"number\",\"minimum\":0,\"maximum\":1,\"default\":0.5}",
        "\"where\":{\"description\":\"Which rows.\",\"enum\":[\"last\",\"all\",\"7\"],\"default\":\"last\"}",
        "\"scale\":{\"description\":\"A factor.\",\"type\":\"number\",\"minimum\":0,\"default\":1}",
        "\"vectors\":{\"description\":\"File of "
        "vectors.\",\"type\":[\"string\",\"null\"],\"minLength\":1,\"default\":null}",
        "\"preset\":{\"description\":\"Where options that are not given come "
        "from.\",\"enum\":[\"recommended\",\"paper\","
        "\"code\"],\"default\":\"recommended\"}",
        "^(all|auto|",
        "\"plain\":{\"title\":\"Without options\"",
        "\"additionalProperties\":false}",
        NULL,
    };
    check_has(flat, parts);
    cJSON_free(flat);
    cJSON_Delete(root);
    free(text);
    assert_int_equal(candid_config_schema(&text, NULL), CANDID_OK);
    candid_string_free(text);
    candid_string_free(NULL);
}

static void documentation(void **state) {
    char *text = NULL;
    size_t size = 0;
    FILE *to = open_memstream(&text, &size);
    assert_non_null(to);
    methods_write_markdown(example_methods, to);
    fputs("====\n", to);
    methods_write_list(example_methods, to);
    fputs("====\n", to);
    method_write(&alpha_method, to);
    fclose(to);
    static const char *const parts[] = {
        "{\n    \"alpha\": true,\n    \"beta_two\": {\"preset\": \"paper\", \"layers\": \"auto\"}\n}",
        "## `alpha`: Attention for all\n\nattention.probs: moves mass.\n\nCost: None.\n",
        "| `count` | an integer from 1 to 20 | `3` | `5` | `3` | Number of a\\|b. |\n",
        "## `plain`: Without options",
        "It has no options.",
        "====\nalpha     Attention for all\n          attention.probs: moves mass.\nbeta_two  Better heads\n",
        "  rho: a number from 0 to 1\n    default 0.5, paper 0.9, code 0.8\n    Share of heads.\n",
        "  count: an integer from 1 to 20\n    default 3, paper 5\n",
        NULL,
    };
    check_has(text, parts);
    free(text);
}

/* The public calls, which know this build's methods. */
static void public_api(void **state) {
    candid_config *c = NULL;
    candid_error error = {0};
    assert_int_equal(candid_config_parse("{}garbage", 2, NULL, &c, &error), CANDID_OK);
    assert_int_equal(candid_config_set(c, "no_such_method_at_all=true", &error), CANDID_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "no_such_method_at_all=true"));
    assert_int_equal(candid_config_set(c, NULL, &error), CANDID_ERROR_ARGUMENT);
    assert_int_equal(candid_config_set(NULL, "a=1", &error), CANDID_ERROR_ARGUMENT);
    candid_config_free(c);
    candid_config_free(NULL);
    assert_int_equal(candid_config_parse("{", 1, NULL, &c, &error), CANDID_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "(configuration)"));
    assert_int_equal(candid_config_parse(NULL, 1, NULL, &c, &error), CANDID_ERROR_ARGUMENT);
    assert_int_equal(candid_config_parse("{}", 2, NULL, NULL, &error), CANDID_ERROR_ARGUMENT);
    assert_int_equal(candid_config_load("/no/such/file.json", &c, &error), CANDID_ERROR_IO);
    assert_int_equal(candid_config_load(NULL, &c, &error), CANDID_ERROR_ARGUMENT);
    assert_int_equal(candid_config_schema(NULL, &error), CANDID_ERROR_ARGUMENT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resolving),       cmocka_unit_test(values),     cmocka_unit_test(bad_text),
        cmocka_unit_test(assigning),       cmocka_unit_test(files),      cmocka_unit_test(layers),
        cmocka_unit_test(bad_assignments), cmocka_unit_test(tables),     cmocka_unit_test(schema),
        cmocka_unit_test(documentation),   cmocka_unit_test(public_api),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
