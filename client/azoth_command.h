/*
 * azoth_command.h - named commands: logic in C that workers run for everyone.
 *
 * A command library is a shared object that links nothing of ours:
 *
 *   cc -shared -fPIC -I/usr/local/include/azoth transfer.c -o transfer.so
 *   azoth-worker --dir DIR --name 1 --load ./transfer.so
 *
 * It exports one function, azoth_commands(), which returns its table. examples/commands/transfer.c
 * is a complete one.
 *
 * A call goes through two functions of the command:
 *
 *   declare   before any lock: names every key that will be read or written, from the arguments.
 *   run       under the stripe locks of those keys, on a snapshot taken after them: reads, decides,
 *             and yields operations and events. It writes nothing itself; the writer applies what
 * it yielded in one durable transaction, or not at all. What it read still holds then.
 *
 * Both return 0 or a negative AZOTH_ERR_*. A function of the tables below that fails has kept a
 * sentence: returning its code hands both to the caller. A code of another origin gets the code's
 * own sentence. Outputs are untouched on failure.
 *
 * Rules. They may be called by two threads at once, so no unguarded statics. Same arguments, same
 * keys: declare must not depend on anything else. Nothing here may be kept after the function
 * returned. No waiting, no input or output: other transactions wait for these keys.
 *
 * Time. A command has worker.command_time (default 1 s) for declare and as much for run. One that
 * overruns ends its worker: the process logs the command and the request id and exits, its locks
 * are given back within a second, the supervisor starts it again and the caller's request is sent
 * to another worker or again. It cannot be milder: a thread cannot be stopped from outside at a
 * known point (it may hold the allocator's lock, or be half through a structure of its own), so the
 * only thing that ends it and leaves everything else whole is the end of its process. A command
 * that crashes does the same. Either takes down its own worker only, never the writer or the data.
 */
#ifndef AZOTH_COMMAND_H
#define AZOTH_COMMAND_H

#include "azoth_base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Of the structs below. A library made for another one is refused by name. */
#define AZOTH_COMMAND_ABI 1u

/* The arguments of a call. JSON clients send any JSON value, which is here as its text; others may
 * send any bytes. The functions read members of one JSON object. */
struct azoth_command_args {
    struct azoth_bytes text;
    void *host;
    /* BAD_JSON (text is no JSON object), NOT_FOUND (no such member), TYPE (another type). *ret of
     * string is UTF-8 and borrows the call. */
    int (*integer)(const struct azoth_command_args *a, const char *member, int64_t *ret);
    int (*string)(const struct azoth_command_args *a, const char *member, struct azoth_bytes *ret);
    /* 1 when there is such a member. */
    int (*has)(const struct azoth_command_args *a, const char *member);
};

/* What declare is given. Keys are copied. */
struct azoth_command_declare {
    void *host;
    int (*read)(struct azoth_command_declare *d, struct azoth_bytes key);  /* KEY_SIZE, TXN_SIZE */
    int (*write)(struct azoth_command_declare *d, struct azoth_bytes key); /* and may be read */
    /* Keeps the sentence and returns AZOTH_ERR_REJECTED. */
    int (*reject)(struct azoth_command_declare *d, const char *fmt, ...)
        __attribute__((format(printf, 2, 3)));
};

/* What run is given. */
struct azoth_command_run {
    void *host;

    /* Reads see the snapshot, not what run has yielded. NOT_FOUND, UNDECLARED_KEY, CORRUPT; TYPE.
     * The value borrows the snapshot. ret_version may be NULL. */
    int (*get)(struct azoth_command_run *r, struct azoth_bytes key, struct azoth_value *ret,
               uint64_t *ret_version);
    int (*get_i64)(struct azoth_command_run *r, struct azoth_bytes key, int64_t *ret);

    /* Operations on keys declared for writing (else UNDECLARED_KEY), applied in this order. Values
     * and keys are copied. What depends on the value at commit (OVERFLOW, TYPE) is told to the
     * caller. */
    int (*set)(struct azoth_command_run *r, struct azoth_bytes key, struct azoth_value value);
    int (*set_i64)(struct azoth_command_run *r, struct azoth_bytes key, int64_t n);
    int (*set_string)(struct azoth_command_run *r, struct azoth_bytes key, struct azoth_bytes utf8);
    int (*remove)(struct azoth_command_run *r, struct azoth_bytes key);
    int (*add)(struct azoth_command_run *r, struct azoth_bytes key, struct azoth_value delta);
    int (*add_i64)(struct azoth_command_run *r, struct azoth_bytes key, int64_t delta);
    int (*set_add)(struct azoth_command_run *r, struct azoth_bytes key, struct azoth_bytes member);
    int (*set_remove)(struct azoth_command_run *r, struct azoth_bytes key,
                      struct azoth_bytes member);
    int (*array_push)(struct azoth_command_run *r, struct azoth_bytes key,
                      struct azoth_bytes member);

    /* Events, numbered in this order. stream and metadata may be empty. event_json checks that the
     * payload is JSON text: BAD_JSON. */
    int (*event)(struct azoth_command_run *r, struct azoth_bytes type, struct azoth_bytes payload,
                 struct azoth_bytes stream, struct azoth_bytes metadata);
    int (*event_json)(struct azoth_command_run *r, const char *type, const char *json);

    /* Refuses the transaction: keeps the sentence and returns AZOTH_ERR_REJECTED. */
    int (*reject)(struct azoth_command_run *r, const char *fmt, ...)
        __attribute__((format(printf, 2, 3)));
};

struct azoth_command {
    const char *name; /* 1 to AZOTH_NAME_MAX of [A-Za-z0-9_-], a letter first */
    int (*declare)(struct azoth_command_declare *d, const struct azoth_command_args *args);
    int (*run)(struct azoth_command_run *r, const struct azoth_command_args *args);
};

struct azoth_command_library {
    uint32_t abi;   /* AZOTH_COMMAND_ABI */
    uint32_t count; /* of commands: 1 to 256 */
    const struct azoth_command *commands;
};

/* The one symbol of a library. What it returns must stay until the process ends. */
AZOTH_API const struct azoth_command_library *azoth_commands(void);

/* Bytes of a string without its NUL, for keys and members. */
static inline struct azoth_bytes azoth_command_str(const char *s)
{
    struct azoth_bytes b = {s, 0};
    while (s[b.len])
        b.len++;
    return b;
}

#ifdef __cplusplus
}
#endif
#endif
