/* candid hosts: which methods run in which host. */
#include <cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "candid/plugin.h"
#include "cli/cli.h"

static const char help[] = "Usage: candid hosts [--config FILE] [--markdown] [HOST]\n"
                           "\n"
                           "Which methods run inside other runtimes, in a model of LLaVA-1.5-7B's shape; what is\n"
                           "missing where one does not. A HOST alone (transformers, llama.cpp, …) shows what each\n"
                           "method needs of it.\n"
                           "\n"
                           "  --config FILE  the methods and options of this configuration instead of all defaults\n"
                           "  --markdown     as a table for documents\n";

#define SITES                                                                                                          \
    (CANDID_CAN_BLOCK_INPUT | CANDID_CAN_ATTENTION_SCORES | CANDID_CAN_ATTENTION_PROBS | CANDID_CAN_HEAD_OUTPUT |      \
     CANDID_CAN_MLP_OUTPUT | CANDID_CAN_BLOCK_OUTPUT | CANDID_CAN_FINAL_NORM | CANDID_CAN_LOGITS)
#define ROWS ((uint32_t)CANDID_CAN_ATTENTION_SCORES | CANDID_CAN_ATTENTION_PROBS)
#define LLAMA_CPP                                                                                                      \
    (SITES | CANDID_CAN_POSITIONS | CANDID_CAN_MASK | CANDID_CAN_COMPANIONS | CANDID_CAN_BRANCHES |                    \
     CANDID_CAN_VISION_ATTENTION | CANDID_CAN_PIXELS | CANDID_CAN_VISUAL_TOKENS)

/* What the adapters of this version can show; theirs is the last word. */
static const struct {
    const char *name;
    uint32_t abilities;
} hosts[] = {
    {"transformers", LLAMA_CPP | CANDID_CAN_EARLY_LOGITS | CANDID_CAN_CANDIDATES},
    {"llama.cpp", LLAMA_CPP},
    {"llama.cpp with flash attention", LLAMA_CPP & ~ROWS},
    {"logits only", CANDID_CAN_LOGITS | CANDID_CAN_BRANCHES | CANDID_CAN_PIXELS},
};
#define N_HOSTS (sizeof hosts / sizeof *hosts)

/* The capabilities of a host, or NULL with a message. */
static cJSON *capabilities(size_t which, const candid_config *config) {
    candid_host host = candid_host_default();
    host.host = hosts[which].name;
    host.abilities = hosts[which].abilities;
    host.n_layer = host.n_head = host.n_head_kv = 32;
    host.head_dim = 128;
    host.n_embd = 4096;
    host.n_vocab = 32000;
    host.n_vision_blocks = 23;
    char *text = NULL;
    candid_error error;
    if (candid_host_capabilities(&host, config, &text, &error) != CANDID_OK) {
        complain("%s", error.message);
        return NULL;
    }
    cJSON *parsed = cJSON_Parse(text);
    candid_string_free(text);
    return parsed;
}

static bool runs(const cJSON *method) {
    return cJSON_IsTrue(cJSON_GetObjectItem(method, "runs"));
}

/* "attention.scores, attention.probs" */
static void print_needs(const cJSON *method) {
    const cJSON *needs = cJSON_GetObjectItem(method, "needs");
    for (const cJSON *need = needs ? needs->child : NULL; need; need = need->next) {
        printf("%s%s", need->valuestring, need->next ? ", " : "");
    }
}

static void print_table(cJSON *const *tables, bool markdown) {
    printf(markdown ? "| method |" : "%-10s", "method");
    for (size_t h = 0; h < N_HOSTS; h++) {
        printf(markdown ? " %s |" : "  %s", hosts[h].name);
    }
    puts(markdown ? " needs |" : "  needs");
    for (size_t h = 0; markdown && h < N_HOSTS + 2; h++) {
        printf(h == 0 ? "|---|" : "---|");
    }
    printf(markdown ? "\n" : "");
    for (const cJSON *m = tables[0]->child; m; m = m->next) {
        printf(markdown ? "| `%s` |" : "%-10s", m->string);
        for (size_t h = 0; h < N_HOSTS; h++) {
            const char *answer = runs(cJSON_GetObjectItem(tables[h], m->string)) ? "yes" : "-";
            if (markdown) {
                printf(" %s |", answer);
            } else {
                printf("  %-*s", (int)strlen(hosts[h].name), answer);
            }
        }
        fputs(markdown ? " " : "  ", stdout);
        print_needs(m);
        puts(markdown ? " |" : "");
    }
}

static void print_host(const cJSON *table) {
    for (const cJSON *m = table->child; m; m = m->next) {
        const char *why = cJSON_GetStringValue(cJSON_GetObjectItem(m, "why"));
        printf("%-10s  %-3s  needs ", m->string, runs(m) ? "yes" : "no");
        print_needs(m);
        printf(why ? "\n%17s%s\n" : "\n", "", why);
    }
}

static int run(const candid_config *config, const char *wanted, bool markdown) {
    cJSON *tables[N_HOSTS] = {NULL};
    bool fine = true;
    for (size_t h = 0; h < N_HOSTS; h++) {
        tables[h] = capabilities(h, config);
        fine = fine && tables[h];
    }
    for (size_t h = 0; fine && wanted && h < N_HOSTS; h++) {
        if (strcmp(hosts[h].name, wanted) == 0) {
            print_host(tables[h]);
        }
    }
    if (fine && !wanted) {
        print_table(tables, markdown);
    }
    for (size_t h = 0; h < N_HOSTS; h++) {
        cJSON_Delete(tables[h]);
    }
    return fine ? EXIT_OK : EXIT_USAGE;
}

static bool is_host(const char *name) {
    for (size_t h = 0; h < N_HOSTS; h++) {
        if (strcmp(hosts[h].name, name) == 0) {
            return true;
        }
    }
    return false;
}

int command_hosts(int argc, char **argv) {
    const char *path = NULL, *wanted = NULL;
    bool markdown = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            fputs(help, stdout);
            return EXIT_OK;
        }
        if (strcmp(argv[i], "--markdown") == 0) {
            markdown = true;
        } else if (strcmp(argv[i], "--config") == 0 && i + 1 < argc) {
            path = argv[++i];
        } else if (argv[i][0] != '-' && !wanted && is_host(argv[i])) {
            wanted = argv[i];
        } else {
            complain(argv[i][0] == '-' ? "unknown option \"%s\"; see candid hosts --help"
                                       : "no host \"%s\"; candid hosts lists them",
                     argv[i]);
            return EXIT_USAGE;
        }
    }
    candid_config *config = NULL;
    candid_error error;
    if (path && candid_config_load(path, &config, &error) != CANDID_OK) {
        complain("%s", error.message);
        return EXIT_USAGE;
    }
    const int code = run(config, wanted, markdown);
    candid_config_free(config);
    return code;
}
