# Azoth: event sourcing on one machine. `make help` lists the targets.

CC      ?= gcc
CFLAGS  ?= -O2 -g
PREFIX  ?= /usr/local
SAN     ?=
# A fault-injecting build has CRASH_POINT()s and injection hooks; the release build has none.
FAULTS  ?=

comma := ,
variant := $(if $(SAN),-$(subst $(comma),-,$(SAN)))$(if $(FAULTS),-faults)$(if $(filter clang%,$(CC)),-clang)
BUILD ?= build$(if $(variant),/v$(variant))

PKGS := lmdb sqlite3 nanomsg libtpl jansson libxxhash libsystemd inih
PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS) 2>/dev/null)

WARN := -Wall -Wextra -Werror -Wshadow -Wconversion -Wmissing-prototypes -Wstrict-prototypes -Wvla
OURS := -std=gnu11 -D_GNU_SOURCE -I. -Icore -fPIC -fvisibility=hidden -pthread $(WARN) $(PKG_CFLAGS) \
        $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer -O1) \
        $(if $(FAULTS),-DAZOTH_FAULTS)
LINK := -pthread $(if $(SAN),-fsanitize=$(SAN))

# Libraries by who needs them. The writer links neither nanomsg nor jansson.
LIBS_STORE := -llmdb -lxxhash -lgmp
LIBS_JSON  := -ljansson
LIBS_NET   := -lnanomsg -ltpl
LIBS_SQL   := -lsqlite3
LIBS_SYS   := -lsystemd -linih
LIBS_ALL   := -Wl,--as-needed $(LIBS_STORE) $(LIBS_JSON) $(LIBS_NET) $(LIBS_SQL) $(LIBS_SYS) -ldl -lm

# --- sources, in the order in which data flows --------------------------------------------------

CORE := core/error.c core/buf.c core/clock.c core/u256.c core/value.c core/base64.c \
        core/valuejson.c core/record.c core/txn.c core/txnjson.c core/store.c core/scan.c \
        core/wire.c core/pipe.c core/log.c core/config.c core/dbdir.c core/service.c core/crash.c
SHM := shm/segment.c shm/participant.c shm/slot.c shm/stripe.c shm/reaper.c shm/gauges.c \
       shm/projection_row.c
WRITER := writer/append.c writer/recover.c writer/writer.c
FEED := writer/feed.c
WORKERS := workers/preflight.c workers/require.c
SERVER := workers/server.c workers/answer.c workers/command.c
PROJECTOR := projector/sqlfile.c projector/table.c projector/pull.c
CLIENT := client/db.c client/transaction.c client/read.c client/remote.c
CMD := client/cmd/main.c

LIB_SRC := $(CORE) $(SHM) $(WRITER) $(WORKERS) $(CLIENT)
OTHER_SRC := $(FEED) $(SERVER) $(PROJECTOR)

PROGRAMS := azoth azoth-writer azoth-feed azoth-worker azoth-projector

UNIT_TESTS :=

# --- rules ---------------------------------------------------------------------------------------

obj = $(patsubst %.c,$(BUILD)/%.o,$(1))

.PHONY: all
all: $(addprefix $(BUILD)/,$(PROGRAMS)) $(BUILD)/libazoth.so.0

# Objects are rebuilt when the flags change.
$(BUILD)/flags: FORCE
	@mkdir -p $(BUILD)
	@echo '$(CC) $(CFLAGS) $(OURS)' | cmp -s - $@ || echo '$(CC) $(CFLAGS) $(OURS)' > $@
.PHONY: FORCE

$(BUILD)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(OURS) -MMD -MP -c $< -o $@

$(BUILD)/libazoth.a: $(call obj,$(LIB_SRC))
	rm -f $@; ar rcs $@ $^
$(BUILD)/libother.a: $(call obj,$(OTHER_SRC))
	rm -f $@; ar rcs $@ $^
