/*
 * azoth_base.h - the vocabulary of the public API: limits, errors, bytes, ids, typed values.
 *
 * Part of the public header set; <azoth.h> includes it. Everything here is plain data: no call in
 * this file blocks, and all of them may be made from any thread.
 */
#ifndef AZOTH_BASE_H
#define AZOTH_BASE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define AZOTH_VERSION "0.1.0"

#define AZOTH_API __attribute__((visibility("default")))

/* Limits. Whatever is over its limit is refused by name before anything is queued. */
#define AZOTH_KEY_MAX        511u       /* bytes of a state key; at least 1 */
#define AZOTH_EVENT_TYPE_MAX 255u       /* bytes of an event's type, UTF-8; at least 1 */
#define AZOTH_STREAM_KEY_MAX 511u       /* bytes of an event's stream key; may be empty */
#define AZOTH_METADATA_MAX   4096u      /* bytes of an event's metadata; may be empty */
#define AZOTH_VALUE_MAX      (1u << 20) /* bytes of one encoded state value */
#define AZOTH_PAYLOAD_MAX    (1u << 20) /* bytes of one event's payload */
#define AZOTH_TXN_BYTES_MAX  (4u << 20) /* bytes of one encoded transaction */
#define AZOTH_TXN_ITEMS_MAX  16384u /* declarations, requirements, operations and events of one */
#define AZOTH_ID_BYTES       16u    /* bytes of a request id */
#define AZOTH_NAME_MAX       63u    /* bytes of the name of a projection, command or process */

/*
 * Errors: X(name, number, class, exit code, sentence).
 *
 * Calls return 0 or one of these, negative. The class says what the caller can do about it:
 * CALLER (mend the request), CONFLICT (somebody else's transaction decided), RETRY (the same call
 * may succeed later), SYSTEM (the machine said no), CORRUPT (data is not what was written).
 * The exit code is the one of the azoth command.
 */
#define AZOTH_ERRORS(X)                                                                            \
    X(USAGE, 1, CALLER, 2, "the call or the command line is not of the form that is asked for")    \
    X(NOMEM, 2, SYSTEM, 4, "out of memory")                                                        \
    X(IO, 3, SYSTEM, 4, "input or output failed")                                                  \
    X(NOSPACE, 4, SYSTEM, 4, "no space left for what was to be written")                           \
    X(CORRUPT, 5, CORRUPT, 4, "stored or shared data fails its check")                             \
    X(NO_DATABASE, 6, CALLER, 3, "there is no database in this directory")                         \
    X(DATABASE_EXISTS, 7, CALLER, 1, "there is a database in this directory already")              \
    X(NO_WRITER, 8, RETRY, 3, "no writer is running on this database")                             \
    X(WRITER_RUNNING, 9, CALLER, 3, "another writer holds this database")                          \
    X(FORMAT, 10, CALLER, 4, "the store has a format that this version does not know")             \
    X(LAYOUT, 11, CALLER, 3, "the shared segment was made by a version with another layout")       \
    X(RETIRED, 12, RETRY, 3, "the shared segment was retired; attach again")                       \
    X(FORKED, 13, CALLER, 2, "this handle belongs to the parent process")                          \
    X(CLOSED, 14, CALLER, 2, "this handle is being closed")                                        \
    X(PERMISSION, 15, SYSTEM, 4, "permission denied")                                              \
    X(NOT_FOUND, 16, CALLER, 1, "there is nothing under this key or id")                           \
    X(KEY_SIZE, 17, CALLER, 2, "a key has 1 to 511 bytes")                                         \
    X(VALUE_SIZE, 18, CALLER, 2, "a value or payload is over its limit of 1 MiB")                  \
    X(EVENT_TYPE, 19, CALLER, 2, "an event's type has 1 to 255 bytes of UTF-8")                    \
    X(TXN_SIZE, 20, CALLER, 2, "the transaction is over its limit of bytes or items")              \
    X(TYPE, 21, CALLER, 1, "the value has another type")                                           \
    X(OVERFLOW, 22, CALLER, 1, "the result is greater than the type's greatest value")             \
    X(UNDERFLOW, 23, CALLER, 1, "the result is less than the type's least value")                  \
    X(DIVISION, 24, CALLER, 1, "division by zero")                                                 \
    X(UTF8, 25, CALLER, 2, "a string is not valid UTF-8")                                          \
    X(ENCODING, 26, CALLER, 2, "a value is not in its type's canonical encoding")                  \
    X(BAD_REQUEST, 27, CALLER, 2, "the request is malformed")                                      \
    X(BAD_JSON, 28, CALLER, 2, "the JSON text is malformed or not of the form that is asked for")  \
    X(PREFLIGHT_FAILED, 29, CONFLICT, 1, "a requirement of the transaction does not hold")         \
    X(REJECTED, 30, CONFLICT, 1, "a callback or command refused the transaction")                  \
    X(LOCK_TIMEOUT, 31, RETRY, 1, "the deadline passed while waiting for another transaction")     \
    X(BUSY, 32, RETRY, 1, "the commit queue stayed full until the deadline")                       \
    X(PAUSED, 33, RETRY, 1, "the database is paused for writes")                                   \
    X(SEALED, 34, RETRY, 1, "the database is sealed for writes")                                   \
    X(ID_REUSED, 35, CALLER, 2, "this request id was used for another content")                    \
    X(NO_ID, 36, CALLER, 2, "a request over the network needs an id")                              \
    X(OUTCOME_UNKNOWN, 37, RETRY, 5, "submitted, but the answer did not come in time")             \
    X(TIMEOUT, 38, RETRY, 1, "the deadline passed")                                                \
    X(UNDECLARED_KEY, 39, CALLER, 2, "a callback used a key that the transaction did not declare") \
    X(SCAN_IN_CALLBACK, 40, CALLER, 2, "scans are refused inside a callback")                      \
    X(NO_COMMAND, 41, CALLER, 2, "no worker has loaded a command of this name")                    \
    X(COMMAND_TIMEOUT, 42, RETRY, 1, "the command ran over its time limit")                        \
    X(PROJECTION, 43, CALLER, 1, "the projection's definition is not valid")                       \
    X(HANDLER, 44, CALLER, 1, "a projection's handler failed on an event")                         \
    X(DIVERGED, 45, CORRUPT, 4, "the projection follows another history than this log")            \
    X(GAP, 46, CORRUPT, 4, "an event id is missing from the log")                                  \
    X(CONFIG, 47, CALLER, 2, "the configuration is not valid")                                     \
    X(DUPLICATE, 48, CALLER, 2, "the name is taken")                                               \
    X(FULL, 49, RETRY, 1, "a table of fixed size has no free row")                                 \
    X(UNREACHABLE, 50, RETRY, 3, "no worker answers at this endpoint")                             \
    X(UNSUPPORTED, 51, CALLER, 2, "this is not offered here")                                      \
    X(TRUNCATED, 52, CORRUPT, 4, "the backup ends too early: it is not complete")                  \
    X(WRONG_KEY, 53, CALLER, 1, "this key or passphrase does not open the backup")                 \
    X(BACKUP_MISSING, 54, CALLER, 1, "a backup that this one builds on is not there")

enum azoth_code {
    AZOTH_OK = 0,
#define AZOTH_X(name, number, class, exit, sentence) AZOTH_ERR_##name = -(number),
    AZOTH_ERRORS(AZOTH_X)
#undef AZOTH_X
};

enum azoth_class {
    AZOTH_CLASS_NONE,
    AZOTH_CLASS_CALLER,
    AZOTH_CLASS_CONFLICT,
    AZOTH_CLASS_RETRY,
    AZOTH_CLASS_SYSTEM,
    AZOTH_CLASS_CORRUPT,
};

/* Detail beside an error code. Owned by the caller; written only by calls that fail. */
struct azoth_error {
    int32_t code;      /* enum azoth_code */
    int32_t foreign;   /* errno, or the code of the library below; 0 when there is none */
    char message[240]; /* one sentence, NUL-terminated, naming the key, file:line or event */
};

AZOTH_API const char *
azoth_code_name(int code); /* "AZOTH_ERR_BUSY"; "AZOTH_OK" for 0; never NULL */
AZOTH_API const char *azoth_code_sentence(int code); /* never NULL */
AZOTH_API enum azoth_class azoth_code_class(int code);
AZOTH_API int azoth_code_exit(int code); /* exit code of the azoth command: 0 to 5 */

/* Borrowed bytes: whoever made them says how long they live. ptr may be NULL when len is 0. */
struct azoth_bytes {
    const void *ptr;
    size_t len;
};

struct azoth_event_id {
    uint64_t n; /* 1 for the first event; 0 stands for "none" */
};
struct azoth_txn_id {
    uint64_t n; /* 1 for the first committed transaction; 0 stands for "none" */
};

/* Typed values. The numbers are stored: they never change. */
enum azoth_type {
    AZOTH_TYPE_I64 = 1,
    AZOTH_TYPE_U256 = 2,
    AZOTH_TYPE_SET = 3,
    AZOTH_TYPE_ARRAY = 4,
    AZOTH_TYPE_BYTES = 5,
    AZOTH_TYPE_STRING = 6,
};

/* A value: its type and its canonical encoding (borrowed; see core/value.h for the encodings). */
struct azoth_value {
    uint32_t type;
    struct azoth_bytes enc;
};

/* An integer from 0 to 2^256-1; limb[0] is the least significant. */
struct azoth_u256 {
    uint64_t limb[4];
};

#ifdef __cplusplus
}
#endif
#endif
