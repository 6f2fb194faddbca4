/* Numbers as Python prints them. */
#ifndef CANDID_EVAL_COMMON_PYTHON_FLOAT_H
#define CANDID_EVAL_COMMON_PYTHON_FLOAT_H

#define PYTHON_FLOAT 48

/* The shortest decimal that reads back as `value`, in the form of repr: "0.52", "1.0", "1e-05", "nan". Returns buffer.
 */
const char *python_float(double value, char buffer[PYTHON_FLOAT]);

/* round(value, 1): the nearest decimal with one digit, ties by the exact binary value as in "%.1f". */
double python_round1(double value);

#endif
