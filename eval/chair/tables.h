/* The files of eval/chair/tables, which are part of the program. */
#ifndef CANDID_EVAL_CHAIR_TABLES_H
#define CANDID_EVAL_CHAIR_TABLES_H

extern const char chair_table_synonyms[];       /* "name, synonym, …" per class */
extern const char chair_table_two_words[];      /* "first second\tvalue" */
extern const char chair_table_lemmas[];         /* "form\tnoun\tverb\tadjective\tadverb", "-" for none */
extern const char chair_table_pattern[];        /* "form\tsingular" */
extern const char chair_table_images_opera[];   /* image ids */
extern const char chair_table_images_pai_927[]; /* image ids */

#endif
