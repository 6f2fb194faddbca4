/* Documentation and listings of the methods, from the tables. */
#include <string.h>

#include "interventions/config.h"
#include "interventions/option.h"
#include "interventions/schema.h"

#define WIDTH 100

/* `text` in lines of WIDTH columns, all but the first indented; the first begins at column `indent`. */
static void write_wrapped(const char *text, int indent, FILE *to) {
    int column = indent;
    while (*text) {
        const size_t word = strcspn(text, " ");
        int shown = 0; /* characters, not bytes */
        for (size_t i = 0; i < word; i++) {
            shown += (text[i] & 0xC0) != 0x80;
        }
        if (column > indent && column + 1 + shown > WIDTH) {
            fprintf(to, "\n%*s", indent, "");
            column = indent;
        } else if (column > indent) {
            fputc(' ', to);
            column++;
        }
        fwrite(text, 1, word, to);
        column += shown;
        text += word;
        text += strspn(text, " ");
    }
    fputc('\n', to);
}

static const char *other_default(const struct method_option *o, enum preset preset) {
    const char *text = option_default(o, preset);
    return strcmp(text, o->recommended) == 0 ? NULL : text;
}

void methods_write_list(const struct method *const *table, FILE *to) {
    int widest = 0;
    for (const struct method *const *m = table; *m; m++) {
        const int n = (int)strlen((*m)->name);
        widest = n > widest ? n : widest;
    }
    for (const struct method *const *m = table; *m; m++) {
        fprintf(to, "%-*s  %s\n%*s", widest, (*m)->name, (*m)->title, widest + 2, "");
        write_wrapped((*m)->edits, widest + 2, to);
    }
}

void method_write(const struct method *m, FILE *to) {
    fprintf(to, "%s: %s\n\n", m->name, m->title);
    const char *const facts[][2] = {{"edits", m->edits}, {"cost", m->cost}, {"from", m->citation}};
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++) {
        fprintf(to, "%-6s ", facts[i][0]);
        write_wrapped(facts[i][1], 7, to);
    }
    fprintf(to, m->n_options ? "\nOptions\n" : "\nIt has no options.\n");
    for (int i = 0; i < m->n_options; i++) {
        const struct method_option *o = &m->options[i];
        const char *paper = other_default(o, PRESET_PAPER), *code = other_default(o, PRESET_CODE);
        char expected[OPTION_EXPECTED];
        fprintf(to, "  %s: %s\n    default %s", o->name, option_expected(o, false, expected), o->recommended);
        fprintf(to, "%s%s%s%s\n    ", paper ? ", paper " : "", paper ? paper : "", code ? ", code " : "",
                code ? code : "");
        write_wrapped(o->doc, 4, to);
    }
}

/* Text of a table's cell. */
static void write_cell(const char *text, FILE *to) {
    for (; *text; text++) {
        if (*text == '|') {
            fputc('\\', to);
        }
        fputc(*text == '\n' ? ' ' : *text, to);
    }
}

static void write_code_cell(const char *text, FILE *to) {
    fputs(" | `", to);
    write_cell(text, to);
    fputc('`', to);
}

static void write_section(const struct method *m, FILE *to) {
    fprintf(to, "\n## `%s`: %s\n\n%s\n\nCost: %s\n\nFrom: %s\n", m->name, m->title, m->edits, m->cost, m->citation);
    if (m->n_options == 0) {
        fputs("\nIt has no options.\n", to);
        return;
    }
    fputs("\n| option | value | recommended | paper | code | meaning |\n|---|---|---|---|---|---|\n", to);
    for (int i = 0; i < m->n_options; i++) {
        const struct method_option *o = &m->options[i];
        char expected[OPTION_EXPECTED];
        fprintf(to, "| `%s` | ", o->name);
        write_cell(option_expected(o, false, expected), to);
        for (int p = 0; p < PRESET_COUNT; p++) {
            write_code_cell(option_default(o, (enum preset)p), to);
        }
        fputs(" | ", to);
        write_cell(o->doc, to);
        fputs(" |\n", to);
    }
}

static const char introduction[] =
    "<!-- Written by `candid config --markdown`; edit the methods' tables in src/interventions instead. -->\n"
    "# Configurations\n"
    "\n"
    "A configuration is a JSON object that switches methods on. Its keys are names of methods; a value is an object\n"
    "with the options that differ from the defaults, or `true`, or `false`.\n";

static const char rules[] =
    "Besides its options a method's object may hold\n"
    "\n"
    "- `\"preset\"`: where options that are not given come from: `\"recommended\"` (default), `\"paper\"` (the\n"
    "  publication's values) or `\"code\"` (those of the program released with it);\n"
    "- `\"enabled\"`: `false` keeps the options and leaves the method off;\n"
    "- `\"comment\"` and `\"source\"`: text for readers.\n"
    "\n"
    "Beside the methods the top level may hold the texts `\"name\"`, `\"comment\"`, `\"source\"` and `\"$schema\"`.\n"
    "`candid config --schema` prints a JSON schema, for editors that complete and check such files;\n"
    "`candid config FILE` checks a file and prints the value of every option.\n"
    "\n"
    "On the command line `--set METHOD.OPTION=VALUE` changes one option and switches its method on,\n"
    "`--set METHOD=true` and `--set METHOD=false` switch a method, `--set METHOD.preset=paper` chooses a preset; "
    "values\n"
    "given stay as they are when the preset changes.\n"
    "\n"
    "Layers are counted from 0 and written as text: `\"5\"`, `\"5-18\"`, `\"2-\"` (to the last one), `\"1,18-31\"`, "
    "`\"all\"`;\n"
    "ranges are cut at the model's last layer. File names are relative to the configuration's folder, in assignments "
    "to\n"
    "the current one.\n";

void methods_write_markdown(const struct method *const *table, FILE *to) {
    fputs(introduction, to);
    if (table[0]) {
        fprintf(to, "\n```json\n{\n    \"%s\": true", table[0]->name);
        const struct method *with_options = NULL;
        for (const struct method *const *m = table + 1; *m && !with_options; m++) {
            with_options = (*m)->n_options > 0 ? *m : NULL;
        }
        if (with_options) {
            fprintf(to, ",\n    \"%s\": {\"preset\": \"paper\", \"%s\": %s}", with_options->name,
                    with_options->options[0].name, with_options->options[0].recommended);
        }
        fputs("\n}\n```\n", to);
    }
    fprintf(to, "\n%s", rules);
    for (const struct method *const *m = table; *m; m++) {
        write_section(*m, to);
    }
}
