/*
 * last.h - the last words of a projector that ended with an error: DIR/projections/STEM.last, one JSON
 * object. It is there also when the projector never reached the feed, after the feed was started anew, and
 * after the machine was. The next one that gets on removes it.
 */
#ifndef PROJECTOR_LAST_H
#define PROJECTOR_LAST_H

#include "core/azoth_base.h"

struct last_words {
    int64_t at_ns;    /* wall clock: the newest time that it ended so */
    int64_t since_ns; /* the first of those with this message, one after the other; 0: not known */
    uint64_t times;   /* how many they are */
    uint64_t event;   /* that it stands at; 0: none */
    int code;         /* enum azoth_code */
    char message[240];
};

/* Written beside and renamed: whole or not at all. since_ns and times are taken from what lies there when it
 * says the same. Nothing is told when it cannot be written: the log has it. */
void last_write(const char *dir, const char *stem, struct last_words *w);
void last_forget(const char *dir, const char *stem);
/* 1 and *ret; 0 when there is none, or it cannot be read. */
int last_read(const char *dir, const char *stem, struct last_words *ret);

#endif
