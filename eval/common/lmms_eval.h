/* Sample logs of lmms-eval (--log_samples), one JSON object per line. */
#ifndef CANDID_EVAL_COMMON_LMMS_EVAL_H
#define CANDID_EVAL_COMMON_LMMS_EVAL_H

#include "eval/common/json_objects.h"

/*
 * Reads a list of objects that may be such a log: where one is ("doc_id" and "filtered_resps"), adds what the readers
 * of answers look for: "answer" (what the model said, before the task lower-cased it), "question" (the prompt), "label"
 * (a target of yes or no) and the id that the task's metrics name: "image_id" of captions, "question_id" of POPE, else
 * the number of the document. The log keeps neither image nor split. Source: lmms_eval/loggers/evaluation_tracker.py,
 * tasks/pope/utils.py, tasks/coco_cap_chair/utils.py.
 */
candid_status answer_objects_read(const char *path, struct json_objects *out, candid_error *error);

#endif
