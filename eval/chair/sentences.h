/* Punkt's sentences (Kiss and Strunk 2006, as in nltk.tokenize.punkt) of lower-cased text. */
#ifndef CANDID_EVAL_CHAIR_SENTENCES_H
#define CANDID_EVAL_CHAIR_SENTENCES_H

#include "eval/chair/tokenize.h"

/* Characters [start, end) of the text. */
struct sentence_span {
    size_t start, end;
};

/* Fills t->spans with the sentences of t->text. */
candid_status sentences_split(struct word_tokenizer *t, candid_error *error);

#endif
