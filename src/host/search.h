/* What a sequence measures for a search. */
#ifndef CANDID_HOST_SEARCH_H
#define CANDID_HOST_SEARCH_H

#include "host/host.h"

/* Makes the main sequence's plan measure what OPERA asks of the last layer. */
candid_status search_measure(candid_sequence *sequence, candid_error *error);

/* A new pass: what the one before measured is forgotten. */
void search_forget(candid_sequence *sequence);

#endif
