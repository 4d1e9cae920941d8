/* Between tune.c and tune_file.c. */
#ifndef KN_TUNE_INSIDE_H
#define KN_TUNE_INSIDE_H
#include "backends/tune.h"

enum { KN_TUNE_TIMES = 256 };

/* One thread measures at a time, or they would disturb each other. False: another one does. */
bool kn_tuner_begin(kn_tuner *t);
void kn_tuner_end(kn_tuner *t);

#endif
