/* candid: command line entry. */
#include <stdarg.h>
#include <string.h>

#include "cli/cli.h"
#include "vision/decode.h"

static const char usage[] = "candid - a vision-language runtime that says what it sees\n"
                            "\n"
                            "Usage:\n"
                            "  candid caption IMAGE...|DIR   describe images\n"
                            "  candid ask -q QUESTION IMAGE...\n"
                            "                                answer a question about each image\n"
                            "  candid inspect IMAGE --out DIR\n"
                            "                                show where the model looked for each word of its answer\n"
                            "  candid report RUN.json...|DIR\n"
                            "                                compare runs of a benchmark on a page of their own\n"
                            "  candid model [FILE|DIR...]    show what is in a model file\n"
                            "  candid convert DIR OUT.gguf   write a Hugging Face directory as GGUF\n"
                            "  candid quantize IN OUT --type T\n"
                            "                                round a GGUF model to a smaller type\n"
                            "  candid verify [MODEL]         compare the fast with the exact path on this machine\n"
                            "  candid methods [NAME]         list mitigation methods, or describe one\n"
                            "  candid hosts                  which methods run in transformers, llama.cpp, …\n"
                            "  candid config FILE            check a configuration, print what it switches on\n"
                            "  candid calibrate sinks|heads  find out about a model what some methods must know\n"
                            "  candid score BENCHMARK FILE...\n"
                            "                                score answers to a benchmark, whoever gave them\n"
                            "  candid pope build|rules       make POPE's questions; list how its answers are read\n"
                            "  candid chair import-tagger|cache\n"
                            "                                prepare what scoring captions needs\n"
                            "  candid bench                  measure prefill, decode and image encoding\n"
                            "  candid COMMAND --help         options of a command\n"
                            "  candid --version\n"
                            "\n"
                            "Without --model the embedded demo model is used: a toy that proves the pipeline.\n"
                            "\n"
                            "Exit codes: 0 done; 1 an image failed, the others were done; 2 wrong command line;\n"
                            "3 the model cannot be opened; 4 the output cannot be written; 130 interrupted.\n";

void complain(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fputs("candid: error: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        int (*run)(int argc, char **argv);
    } commands[] = {
        {"caption", command_caption},     {"ask", command_ask},           {"model", command_model},
        {"convert", command_convert},     {"quantize", command_quantize}, {"verify", command_verify},
        {"bench", command_bench},         {"config", command_config},     {"methods", command_methods},
        {"calibrate", command_calibrate}, {"inspect", command_inspect},   {"score", command_score},
        {"pope", command_pope},           {"chair", command_chair},       {"eval", command_eval},
        {"report", command_report},       {"hosts", command_hosts},
    };
    if (argc < 2) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        fputs(usage, stdout);
        return EXIT_OK;
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "version") == 0) {
        printf("candid %s\nJPEG images are decoded by %s\n", candid_version(), jpeg_decoder_name());
        return EXIT_OK;
    }
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (strcmp(argv[1], commands[i].name) == 0) {
            int code = commands[i].run(argc - 1, argv + 1);
            if ((fflush(stdout) != 0 || ferror(stdout)) && code == EXIT_OK) {
                complain("cannot write to standard output");
                code = EXIT_OUTPUT;
            }
            return code;
        }
    }
    complain("unknown command \"%s\"; see candid --help", argv[1]);
    return EXIT_USAGE;
}
