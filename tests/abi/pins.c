/* The headers against the table of pins.h: compiles, as C11 and as C++17, or does not. */
#include <stddef.h>

#include <candid/candid.h>
#include <candid/plugin.h>

#ifdef __cplusplus
#define HOLDS(condition, sentence) static_assert(condition, sentence);
#else
#define HOLDS(condition, sentence) _Static_assert(condition, sentence);
#endif

HOLDS(sizeof(void *) == 8 && sizeof(size_t) == 8, "pins.h is about 64-bit machines")

#define GROWS(type, size)                                                                                              \
    enum { first_size_of_##type = (size) };                                                                            \
    HOLDS(offsetof(type, struct_size) == 0, #type " no longer begins with struct_size")                                \
    HOLDS(sizeof(type) >= (size), #type " is smaller than it was")
#define FIXED(type, size)                                                                                              \
    enum { first_size_of_##type = (size) };                                                                            \
    HOLDS(sizeof(type) == (size), "the size of " #type " changed, and hosts cannot tell")
#define MADE(type) enum { first_size_of_##type = 0 };
/* A field that came later lies behind what the first release had, padding included: else struct_size does not tell. */
#define FIELD(type, field, offset, size)                                                                               \
    HOLDS(offsetof(type, field) == (offset), #type "." #field " is at another place")                                  \
    HOLDS(sizeof(((type *)0)->field) == (size), #type "." #field " has another size")                                  \
    HOLDS((offset) + (size) <= (int)first_size_of_##type || (offset) >= (int)first_size_of_##type,                     \
          #type "." #field " lies across the end of the first release's " #type)
#define LEAST(name, value)    HOLDS((int)(name) >= (value), #name " is less than it was")
#define CONSTANT(name, value) HOLDS((int)(name) == (value), #name " has another value")

#include "pins.h"

int main(void) {
    return 0;
}
