/* follow.c - reads the log from an event on and goes on with what is committed meanwhile.
 *   follow DIR FROM COUNT */
#include <azoth.h>

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    struct azoth *db;
    struct azoth_error err;
    struct azoth_options o = {.flags = AZOTH_READ_ONLY}; /* needs no writer */
    struct azoth_events *it;
    struct azoth_event ev;
    if (argc != 4 || azoth_open(argv[1], &o, &db, &err)) {
        fprintf(stderr, "%s\n", argc == 4 ? err.message : "usage: follow DIR FROM COUNT");
        return 1;
    }
    if (azoth_events(db, strtoull(argv[2], NULL, 10), 0, NULL, &it, &err)) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    for (long left = atol(argv[3]); left > 0;) {
        int rc = azoth_events_follow(it, 1000, &ev, &err);
        if (rc < 0) {
            fprintf(stderr, "%s\n", err.message);
            return 1;
        }
        if (rc == 0)
            continue; /* nothing for a second */
        printf("%llu %.*s %.*s\n", (unsigned long long)ev.id, (int)ev.type.len,
               (const char *)ev.type.ptr, (int)ev.payload.len, (const char *)ev.payload.ptr);
        fflush(stdout);
        left--;
    }
    azoth_events_free(it);
    azoth_close(db);
    return 0;
}
