/*
 * config.h - settings: a flag wins over the environment, that over DIR/azoth.conf, that over the
 * default.
 *
 * The file is INI (inih): [section] and key = value. An unknown section or key, a value out of its
 * range and a line that is none are AZOTH_ERR_CONFIG with file and line.
 *
 * X(section, key, type, default, least, greatest, help): the table is the documentation; `azoth
 * config` prints it. The environment's name is AZOTH_SECTION_KEY in capitals; the flag is
 * --section-key. Sizes take K, M, G; times take ms, s, min, h; plain numbers are bytes or ms.
 */
#ifndef CORE_CONFIG_H
#define CORE_CONFIG_H

#include "core/azoth_base.h"

#define CONFIG_TABLE(X)                                                                            \
    X(writer, sync, SYNC, "full", 0, 0,                                                            \
      "full: durable before the answer; meta-lazy: a power cut can undo the last transactions; "   \
      "none: for tests and rebuildable data")                                                      \
    X(writer, batch_bytes, SIZE, "4M", 65536, 67108864, "most bytes of one commit")                \
    X(writer, batch_transactions, COUNT, "1024", 1, 65536, "most transactions of one commit")      \
    X(writer, id_count, COUNT, "10000000", 0, 1000000000, "most request ids remembered")           \
    X(writer, id_time, TIME, "24h", 1000, 2592000000, "running time that request ids are kept")    \
    X(writer, redo_keep, SIZE, "4G", 1048576, 1099511627776,                                       \
      "most bytes of redo kept for incremental backups; over it the next backup is a full one")    \
    X(writer, reserve, SIZE, "16M", 0, 17179869184,                                                \
      "kept free on the disk for what is in flight when it runs full; 0: none")                    \
    X(segment, slots, COUNT, "1024", 16, 1024, "transactions in flight at once")                   \
    X(segment, stripes, COUNT, "16384", 64, 16384, "stripes that keys hash onto")                  \
    X(segment, blocks, COUNT, "256", 80, 4096, "64 KiB blocks for large transactions")             \
    X(run, dir, TEXT, "", 0, 0, "directory of the sockets; default DIR/run")                       \
    X(run, workers, COUNT, "2", 0, 64, "workers that azoth run starts")                            \
    X(feed, listen, TEXT, "", 0, 0,                                                                \
      "endpoint beside ipc://RUN/feed.sock, e.g. tcp://127.0.0.1:7101")                            \
    X(feed, connect, TEXT, "", 0, 0,                                                               \
      "projectors: the feed's endpoint; default ipc://RUN/feed.sock")                              \
    X(feed, lapse, TIME, "10s", 100, 3600000, "a projector silent for so long is taken off")       \
    X(worker, listen, TEXT, "", 0, 0, "endpoint beside ipc://RUN/worker-N.sock")                   \
    X(worker, command_time, TIME, "1s", 1, 600000, "most time of one command of --load")           \
    X(projector, credit, SIZE, "1M", 65536, 4194304, "bytes of events that may be on their way")   \
    X(projector, timeout, TIME, "1s", 10, 600000,                                                  \
      "silence after which a batch is asked for again")                                            \
    X(projector, endpoint, TEXT, "", 0, 0, "where the projector listens; default ipc:// in RUN")   \
    X(projector, postgresql, TEXT, "", 0, 0,                                                       \
      "libpq's connection string of projections with the target postgresql, when theirs has none") \
    X(effects, workers, COUNT, "1", 0, 64,                                                         \
      "workers of each effects projection that azoth run starts")                                  \
    X(exporter, listen, TEXT, "127.0.0.1:7109", 0, 0,                                              \
      "address and port of azoth-exporter's HTTP; port 0: any that is free")                       \
    X(exporter, max_lag_events, COUNT, "10000", 0, 1000000000000,                                  \
      "a projection further behind is not ready; 0: no limit")                                     \
    X(exporter, max_lag_seconds, COUNT, "60", 0, 1000000000,                                       \
      "seconds; a projection whose oldest event is older is not ready; 0: no limit")               \
    X(log, level, TEXT, "info", 0, 0, "err, warning, notice, info or debug")

enum config_type { CONFIG_COUNT, CONFIG_SIZE, CONFIG_TIME, CONFIG_TEXT, CONFIG_SYNC };
enum config_sync { CONFIG_SYNC_FULL, CONFIG_SYNC_META_LAZY, CONFIG_SYNC_NONE };

enum config_key {
#define CONFIG_X(section, key, type, def, lo, hi, help) CONFIG_##section##_##key,
    CONFIG_TABLE(CONFIG_X)
#undef CONFIG_X
        CONFIG_KEYS
};

struct config {
    uint64_t number[CONFIG_KEYS]; /* counts, bytes, milliseconds or enum config_sync */
    char text[CONFIG_KEYS][256];  /* as given; the value of TEXT keys */
    uint8_t source[CONFIG_KEYS];  /* 0 default, 1 file, 2 environment, 3 flag */
};

void config_defaults(struct config *c);
/* Defaults, then dir's azoth.conf if it is there, then the environment. AZOTH_ERR_CONFIG, IO. */
int config_load(struct config *c, const char *dir, struct azoth_error *err);
/* Takes --section-key=VALUE or --section-key VALUE out of argv: 1 taken (*i advanced past it), 0
 * not one of ours, AZOTH_ERR_CONFIG. Flags are applied after config_load. */
int config_flag(struct config *c, int argc, char **argv, int *i, struct azoth_error *err);
int config_set(struct config *c, enum config_key key, const char *value, int source,
               struct azoth_error *err);
/* Bytes as a setting has them, "65536", "64K", "16M", "1G": 1 and *ret, or 0. */
int config_parse_size(const char *text, uint64_t *ret);
const char *config_key_name(enum config_key key); /* "writer.sync" */
const char *config_key_help(enum config_key key);

#endif
