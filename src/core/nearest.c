/* Edit distance of short names. */
#include "core/nearest.h"

#include <ctype.h>
#include <stddef.h>
#include <string.h>

#define LONGEST 47

static int smaller(int a, int b) {
    return a < b ? a : b;
}

static int same(char a, char b) {
    return tolower((unsigned char)a) == tolower((unsigned char)b);
}

/* Insertions, deletions, replacements and swaps of neighbours that make b of a (optimal string alignment); 2 LONGEST
 * when one of them is too long to be a name. */
static int distance(const char *a, const char *b) {
    const size_t n = strlen(a), m = strlen(b);
    int rows[3][LONGEST + 1]; /* rows of the table for a's prefixes of i - 2, i - 1 and i letters, i modulo 3 */
    if (n > LONGEST || m > LONGEST) {
        return 2 * LONGEST;
    }
    for (size_t j = 0; j <= m; j++) {
        rows[0][j] = (int)j;
    }
    for (size_t i = 1; i <= n; i++) {
        int *row = rows[i % 3];
        const int *above = rows[(i + 2) % 3], *above2 = rows[(i + 1) % 3];
        row[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            row[j] = smaller(smaller(above[j], row[j - 1]) + 1, above[j - 1] + !same(a[i - 1], b[j - 1]));
            if (i > 1 && j > 1 && same(a[i - 1], b[j - 2]) && same(a[i - 2], b[j - 1])) {
                row[j] = smaller(row[j], above2[j - 2] + 1);
            }
        }
    }
    return rows[n % 3][m];
}

const char *nearest_name(const char *word, const char *best, const char *candidate) {
    const size_t n = strlen(word), m = strlen(candidate);
    const int longer = (int)(n > m ? n : m), d = distance(word, candidate);
    if (d > (longer < 6 ? 1 : longer / 3) || d >= (int)m) {
        return best;
    }
    return best && distance(word, best) <= d ? best : candidate;
}
