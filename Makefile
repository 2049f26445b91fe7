# Azoth: event sourcing on one machine. `make help` lists the targets.

ifeq ($(origin CC),default)
CC := gcc
endif
CFLAGS  ?= -O2 -g
PREFIX  ?= /usr/local
SAN     ?=
# A fault-injecting build has CRASH_POINT()s and injection hooks; the release build has none.
FAULTS  ?=

comma := ,
variant := $(if $(SAN),-$(subst $(comma),-,$(SAN)))$(if $(FAULTS),-faults)$(if $(filter clang%,$(CC)),-clang)
BUILD ?= build$(if $(variant),/v$(variant))

PKGS := lmdb sqlite3 libpq nanomsg libtpl jansson libxxhash libsystemd inih libmicrohttpd libarchive libsodium libtomcrypt libzstd
# Looked up when it is used: on a new machine pkg-config comes with the first target.
PKG_CFLAGS = $(shell pkg-config --cflags $(PKGS) 2>/dev/null)

WARN := -Wall -Wextra -Werror -Wshadow -Wconversion -Wmissing-prototypes -Wstrict-prototypes -Wvla $(if $(filter clang%,$(CC)),,-Wno-format-truncation $(if $(SAN),-Wno-restrict))
OURS = -std=gnu11 -D_GNU_SOURCE -I. -Icore -fPIC -fvisibility=hidden -pthread $(WARN) $(PKG_CFLAGS) \
        $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer -O1) \
        $(if $(FAULTS),-DAZOTH_FAULTS) $(if $(filter thread,$(SAN)),-DSTORE_MAP_BYTES=4294967296ull $(if $(filter clang%,$(CC)),,-Wno-tsan))
LINK := -pthread $(LDFLAGS) $(if $(SAN),-fsanitize=$(SAN))

# Libraries by who needs them. The writer links neither nanomsg nor jansson.
LIBS_STORE := -llmdb -lxxhash -lgmp -ltomcrypt -lzstd
LIBS_JSON  := -ljansson
LIBS_NET   := -lnanomsg -ltpl
LIBS_SQL   := -lsqlite3 -lpq
LIBS_SYS   := -lsystemd -linih
LIBS_HTTP  := -lmicrohttpd
LIBS_TERM  := -lncursesw -ltinfo
LIBS_BACKUP := -larchive -lsodium
LIBS_ALL   := -Wl,--as-needed $(LIBS_STORE) $(LIBS_JSON) $(LIBS_NET) $(LIBS_SQL) $(LIBS_SYS) $(LIBS_HTTP) $(LIBS_TERM) $(LIBS_BACKUP) -ldl -lm

# --- sources, in the order in which data flows --------------------------------------------------

CORE := core/error.c core/buf.c core/clock.c core/u256.c core/value.c core/base64.c \
        core/valuejson.c core/record.c core/hash.c core/chain.c core/txn.c core/batchrec.c core/store.c core/scan.c core/mark.c core/seal.c \
        core/redo.c core/redoscan.c core/storecheck.c core/pagecheck.c core/archivefile.c core/archived.c \
        core/wire.c core/txnjson.c core/answer.c core/pipe.c core/reqrep.c core/log.c \
        core/config.c core/io.c core/dbdir.c core/service.c core/crash.c core/program.c core/process.c \
        core/walpins.c
SHM := shm/segment.c shm/participant.c shm/slot.c shm/stripe.c shm/reaper.c shm/gauges.c \
       shm/projection_row.c shm/pause.c shm/view.c shm/contention.c shm/pins.c shm/marks.c
WRITER := writer/reserve.c writer/create.c writer/chaining.c writer/append.c writer/control.c writer/archiving.c writer/watch.c writer/writer.c
FEED := $(filter-out writer/feed_main.c,$(wildcard writer/feed*.c))
WORKERS := workers/preflight.c workers/require.c
SERVER := workers/server.c workers/message.c workers/command.c workers/command_timer.c
PROJECTOR := $(filter-out projector/main.c,$(wildcard projector/*.c))
# Of these a process that embeds the database has what applies events to a projection's file.
PROJECTING := projector/sqlfile.c projector/marks.c projector/split.c projector/generation.c \
              projector/sql_sqlite.c projector/tablefile.c projector/migrate.c projector/breaker.c \
              projector/coverage.c projector/table.c projector/apply.c projector/failure.c \
              projector/dlq.c projector/replay.c projector/library.c projector/target.c \
              projector/sql_pg.c projector/sql_pg_open.c projector/sql_pg_query.c projector/pgtext.c
CLIENT := client/db.c client/transaction.c client/read.c client/pause.c client/copies.c client/remote.c client/fill.c \
          client/project.c
EXPORTER := $(filter-out exporter/main.c,$(wildcard exporter/*.c))
CMD := $(filter-out client/cmd/main.c,$(wildcard client/cmd/*.c))

LIB_SRC := $(CORE) $(SHM) $(WRITER) writer/feed_look.c $(PROJECTING) $(WORKERS) $(CLIENT)
EFFECTS := effects/command.c
# Only the azoth command has backups: a library that programs link needs no libarchive.
BACKUP := $(wildcard writer/backup*.c) writer/copy.c writer/export.c writer/import.c writer/digest.c \
          writer/restore.c writer/retention.c writer/increment.c writer/advance.c
OTHER_SRC := $(filter-out $(LIB_SRC),$(FEED) $(SERVER) $(PROJECTOR) $(EFFECTS) $(EXPORTER) $(CMD) $(BACKUP))

PROGRAMS := azoth azoth-writer azoth-feed azoth-worker azoth-projector azoth-effects azoth-exporter
MAIN_azoth := client/cmd/main.c
MAIN_azoth-writer := writer/main.c
MAIN_azoth-feed := writer/feed_main.c
MAIN_azoth-worker := workers/main.c
MAIN_azoth-projector := projector/main.c
MAIN_azoth-effects := effects/main.c
MAIN_azoth-exporter := exporter/main.c

# Tests: unit tests are one file each; system tests share a harness; shell tests end in .sh.
UNIT := $(patsubst tests/unit/%.c,%,$(wildcard tests/unit/test_*.c))
# The power cut and the sweeps are made for the release build: they are among the other tests.
FAULT := $(filter-out test_powercut test_disk,$(patsubst tests/fault/%.c,%,$(wildcard tests/fault/test_*.c)))
HARNESS := tests/system/harness.c tests/system/bank.c
SYSTEM := $(patsubst tests/system/%.c,%,$(wildcard tests/system/test_*.c))
FUZZ := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
BENCH := $(wildcard tests/bench/*.c)
EXAMPLES := $(patsubst examples/%.c,%,$(wildcard examples/*/*.c))

# --- building -------------------------------------------------------------------------------------

obj = $(patsubst %.c,$(BUILD)/%.o,$(1))

.PHONY: all
all: packages $(addprefix $(BUILD)/,$(PROGRAMS)) $(BUILD)/libazoth.so.0 $(BUILD)/install/libazoth.a

# `make V=1` shows the commands. Objects are rebuilt when the flags change.
Q := $(if $(V),,@)
$(BUILD)/flags: FORCE
	@mkdir -p $(BUILD)
	@echo '$(CC) $(CPPFLAGS) $(CFLAGS) $(OURS)' | cmp -s - $@ || echo '$(CC) $(CPPFLAGS) $(CFLAGS) $(OURS)' > $@
.PHONY: FORCE

$(BUILD)/%.o: %.c $(BUILD)/flags | packages
	@mkdir -p $(@D)
	@echo '  CC $<'
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(OURS) -MMD -MP -c $< -o $@

# The page is read by the assembler: no compiler says that it depends on it.
$(BUILD)/exporter/page.o: exporter/page.html

$(BUILD)/libazoth.a: $(call obj,$(LIB_SRC))
	@rm -f $@
	$(Q)ar rcs $@ $^
$(BUILD)/libother.a: $(call obj,$(OTHER_SRC))
	@rm -f $@
	$(Q)ar rcs $@ $^
$(BUILD)/libazoth.so.0: $(call obj,$(LIB_SRC)) client/libazoth.map
	$(Q)$(CC) $(LINK) -shared -Wl,-soname,libazoth.so.0 -Wl,--version-script,client/libazoth.map $(filter %.o,$^) $(LIBS_ALL) -o $@
	ln -sf libazoth.so.0 $(BUILD)/libazoth.so
# The one that is installed: of one object, whose inner names are its own and cannot meet a program's.
$(BUILD)/install/libazoth.a: $(call obj,$(LIB_SRC))
	@mkdir -p $(@D)
	@rm -f $@
	$(Q)ld -r -o $(@D)/libazoth.o $^ && objcopy --localize-hidden $(@D)/libazoth.o && ar rcs $@ $(@D)/libazoth.o

define program_rule
$(BUILD)/$(1): $(call obj,$(MAIN_$(1))) $(BUILD)/libother.a $(BUILD)/libazoth.a
	$$(Q)$$(CC) $$(LINK) -rdynamic $$^ $$(LIBS_ALL) -o $$@
endef
$(foreach p,$(PROGRAMS),$(eval $(call program_rule,$(p))))

$(addprefix $(BUILD)/tests/unit/test_,append_chain archiving increment): $(call obj,tests/unit/log_segment.c)
$(addprefix $(BUILD)/tests/unit/,test_dlq test_effects test_library test_pg test_table): $(call obj,tests/unit/projecting.c)
$(addprefix $(BUILD)/tests/,$(addprefix unit/test_,contention exporter participants pause segment) fault/test_reaper): $(call obj,tests/unit/segment_dir.c)
$(BUILD)/tests/unit/test_history: $(call obj,tests/torture/history.c)
$(BUILD)/tests/unit/test_participants: $(call obj,tests/system/harness.c)
# Loaded by the tests, not linked: libraries of handlers in C, and one that is none.
$(BUILD)/tests/unit/test_library: | $(BUILD)/tests/unit/handlers.so $(BUILD)/tests/unit/empty.so
$(BUILD)/tests/system/test_handlers: | $(BUILD)/tests/system/crashing.so
$(BUILD)/tests/unit/handlers.so: tests/unit/handlers.c tests/unit/handlers.h client/azoth_projection.h
$(BUILD)/tests/system/crashing.so: tests/system/crashing.c client/azoth_projection.h
$(BUILD)/tests/unit/handlers.so $(BUILD)/tests/system/crashing.so:
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) -std=gnu11 -D_GNU_SOURCE -Wall -Wextra -Werror -shared -fPIC -I. -Iclient -Icore $< -o $@
$(BUILD)/tests/unit/empty.so:
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) -shared -fPIC -x c /dev/null -o $@
$(BUILD)/tests/unit/test_pg: $(call obj,tests/system/harness.c tests/system/pgserver.c)
# The hashing thread in the test's hands: where it is held, and when there can be none.
$(BUILD)/tests/unit/test_chaining: private LINK += $(patsubst %,-Wl$(comma)--wrap=%,pthread_create pthread_join pthread_cond_wait hash_once)
# A meta page that is read while it is written, and no memory.
$(BUILD)/tests/unit/test_pagecheck: private LINK += $(patsubst %,-Wl$(comma)--wrap=%,pread malloc calloc)
$(BUILD)/tests/unit/%: $(BUILD)/tests/unit/%.o $(BUILD)/libother.a $(BUILD)/libazoth.a
	$(Q)$(CC) $(LINK) $(filter %.o,$^) $(filter %.a,$^) $(LIBS_ALL) -lcmocka -o $@
$(BUILD)/tests/system/test_control: | $(BUILD)/tests/system/damage
$(BUILD)/tests/system/test_postgres: $(call obj,tests/system/pgserver.c)
$(BUILD)/tests/system/%: $(BUILD)/tests/system/%.o $(call obj,$(HARNESS)) $(BUILD)/libother.a $(BUILD)/libazoth.a
	$(Q)$(CC) $(LINK) $^ $(LIBS_ALL) -lcmocka -o $@
$(BUILD)/tests/fault/test_powercut: $(addprefix $(BUILD)/tests/fault/,powercut.o powercut_check.o powercut_record.o)
$(BUILD)/tests/fault/test_crash: $(call obj,tests/fault/crash_client.c tests/fault/crash_check.c)
$(BUILD)/tests/fault/%: $(BUILD)/tests/fault/%.o $(call obj,$(HARNESS)) $(BUILD)/libother.a $(BUILD)/libazoth.a
	$(Q)$(CC) $(LINK) $(filter %.o,$^) $(filter %.a,$^) $(LIBS_ALL) -lcmocka -o $@
$(BUILD)/tests/fault/record_io.so: tests/fault/record_refuse.c tests/fault/powercut.h tests/fault/record_io.h
$(BUILD)/tests/fault/test_crash_handlers: | $(BUILD)/tests/fault/running_sum.so
$(BUILD)/tests/fault/running_sum.so: client/azoth_projection.h
$(BUILD)/tests/fault/%.so: tests/fault/%.c
	@mkdir -p $(@D)
	$(Q)$(CC) -O1 -D_GNU_SOURCE -I. -Icore -Wall -Wextra -Werror -shared -fPIC $(filter %.c,$^) -ldl -o $@
# What replays a corpus has a main() of its own; in the build that looks for new inputs it is libFuzzer's.
FUZZING := $(findstring fuzzer-no-link,$(SAN))
$(BUILD)/tests/fuzz/%: $(BUILD)/tests/fuzz/%.o $(if $(FUZZING),,$(BUILD)/tests/fuzz/replay.o) $(BUILD)/libother.a $(BUILD)/libazoth.a
	$(Q)$(CC) $(LINK) $(if $(FUZZING),-fsanitize=fuzzer) $^ $(LIBS_ALL) -o $@
$(BUILD)/tests/bench/bench: $(call obj,$(BENCH)) $(call obj,$(HARNESS)) $(BUILD)/libother.a $(BUILD)/libazoth.a
	$(Q)$(CC) $(LINK) $^ $(LIBS_ALL) -o $@

TORTURE := $(filter-out tests/torture/command.c,$(wildcard tests/torture/*.c))
$(BUILD)/tests/torture/torture: $(call obj,$(TORTURE)) $(call obj,$(HARNESS)) $(BUILD)/libother.a $(BUILD)/libazoth.a
	$(Q)$(CC) $(LINK) $^ $(LIBS_ALL) -o $@
$(BUILD)/tests/torture/command.so: tests/torture/command.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) -std=gnu11 -Wall -Wextra -Werror -shared -fPIC -Iclient -Icore $< -o $@

# Loaded by the workers of a row, not linked.
$(BUILD)/tests/bench/bench: | $(BUILD)/tests/bench/burn.so
$(BUILD)/tests/bench/burn.so: tests/bench/commands/burn.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) -std=gnu11 -Wall -Wextra -Werror -shared -fPIC -Iclient -Icore $< -o $@

# Examples see only what is installed: the public headers and the library.
$(BUILD)/examples/%: examples/%.c $(BUILD)/libazoth.a $(BUILD)/flags
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(LINK) -std=gnu11 -Wall -Wextra -Werror -Iclient -Icore $< $(BUILD)/libazoth.a $(LIBS_ALL) -o $@
$(BUILD)/examples/commands/%.so: examples/commands/%.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) -std=gnu11 -Wall -Wextra -Werror -shared -fPIC -Iclient -Icore $< -o $@

# The model: the product's own sources, each access to an atomic made a step. Stacks are copied, which
# a sanitizer cannot follow, and what a frame does not use must not tell states apart: flags of its own.
MODEL_STEPPED := shm/slot.c shm/stripe.c shm/reaper.c tests/model/world.c tests/model/join.c \
                 tests/model/submitter.c tests/model/writer_actor.c tests/model/model.c
MODEL_PROGRAMS := $(addprefix $(BUILD)/tests/model/,model chaining)
MODEL := $(if $(SAN),,$(MODEL_PROGRAMS))
MODEL_FLAGS = -std=gnu11 -D_GNU_SOURCE -DSHM_QUEUE_WORD=2u -I. -Icore -pthread $(WARN) $(PKG_CFLAGS) -g
MODEL_CANON := -Og -fno-inline $(if $(filter clang%,$(CC)),,-ftrivial-auto-var-init=zero)
MODEL_OBJ := $(patsubst %.c,$(BUILD)/model/%.o,$(MODEL_STEPPED)) $(BUILD)/model/tests/model/explore.o
$(BUILD)/model/tests/model/explore.o: tests/model/explore.c $(BUILD)/flags | packages
	@mkdir -p $(@D)
	@echo '  CC $< (model)'
	$(Q)$(CC) $(MODEL_FLAGS) -O2 -MMD -MP -c $< -o $@
$(BUILD)/model/%.o: %.c tests/model/step.h $(BUILD)/flags | packages
	@mkdir -p $(@D)
	@echo '  CC $< (model)'
	$(Q)$(CC) $(MODEL_FLAGS) $(MODEL_CANON) -include tests/model/step.h -MMD -MP -c $< -o $@
$(BUILD)/tests/model/model: $(MODEL_OBJ) $(BUILD)/libazoth.a
$(BUILD)/tests/model/chaining: $(patsubst %,$(BUILD)/model/tests/model/%.o,chaining explore) $(BUILD)/libazoth.a
$(MODEL_PROGRAMS):
	@mkdir -p $(@D)
	$(Q)$(CC) $(LINK) $^ $(LIBS_ALL) -o $@

.PRECIOUS: $(BUILD)/%.o

# --- what people call -----------------------------------------------------------------------------

.PHONY: packages run test model bench bench-growth bench-backup bench-table lint fuzz install uninstall clean help torture
packages: $(BUILD)/packages.ok
$(BUILD)/packages.ok: packages.list tools/install-packages
	@mkdir -p $(BUILD)
	tools/install-packages packages.list
	@touch $@

help:
	@echo 'make            build everything below $(BUILD)/'
	@echo 'make run        the whole system for ten seconds on a new database, then an audit'
	@echo 'make test       all tests (SAN=address,undefined for a sanitizer build; CC=clang)'
	@echo 'make test-tsan  the threaded tests with the thread sanitizer'
	@echo 'make test-valgrind  the unit tests under valgrind'
	@echo 'make bench      the product beside its floor, with ratios (PAIRS=15 ROWS=1,3,12)'
	@echo 'make bench-growth  the same with ten million events and a million keys'
	@echo 'make bench-backup  backup and restore beside cp and zstd, and what writers notice'
	@echo 'make bench-backupfile  a backup file written and read beside the zstd command (BYTES= ROUNDS=)'
	@echo 'make bench-table   the last results as the table of the README'
	@echo 'make torture KILLS=1000 SEED=  random kills under load, everything checked (SECONDS= ends earlier)'
	@echo 'make powercut STATES=10000 SEED=  that many states that a power cut may leave, opened'
	@echo 'make model      every interleaving of the larger scenarios, and whether breaks are found'
	@echo 'make lint       format, clang-tidy, cppcheck, and which library is called where'
	@echo 'make fuzz SECONDS=60  each fuzz target for so long (clang)'
	@echo 'make install DESTDIR= PREFIX=/usr/local LIBDIR= UNITDIR='
	@echo 'make deb        the packages azoth, libazoth0 and libazoth-dev into $(BUILD)/deb'
	@echo 'make uninstall, make clean'

EXAMPLE_PROGRAMS := $(patsubst %,$(BUILD)/examples/%,$(filter-out commands/% projections/%,$(EXAMPLES)))
COMMANDS := $(patsubst examples/commands/%.c,$(BUILD)/examples/commands/%.so,$(wildcard examples/commands/*.c))

run: all $(EXAMPLE_PROGRAMS) $(COMMANDS)
	AZOTH_BUILD=$(BUILD) examples/bank/run.sh

TESTS := $(addprefix $(BUILD)/tests/unit/,$(UNIT)) $(MODEL) $(addprefix $(BUILD)/tests/system/,$(SYSTEM)) \
         $(BUILD)/tests/fault/test_powercut $(BUILD)/tests/fault/test_disk
REPLAYS := $(if $(wildcard tests/fuzz/replay.c),$(addprefix $(BUILD)/tests/fuzz/,$(FUZZ)))
# The unit tests and the corpora run with the address sanitizer as well; `make test SAN=...` is all of it.
SANITIZED_BUILD = build/v-address-undefined$(if $(filter clang%,$(CC)),-clang)
SANITIZED = $(if $(SAN),,$(patsubst $(BUILD)/%,$(SANITIZED_BUILD)/%,$(addprefix $(BUILD)/tests/unit/,$(UNIT))))
REPLAYED = $(if $(SAN),$(REPLAYS),$(patsubst $(BUILD)/%,$(SANITIZED_BUILD)/%,$(REPLAYS)))
.PHONY: sanitized
sanitized: packages $(addprefix $(BUILD)/tests/unit/,$(UNIT)) $(REPLAYS)
$(BUILD)/test-packages.ok: tests/packages.list tools/install-packages | packages
	tools/install-packages tests/packages.list
	@touch $@
# Without network or root the package's test is skipped, and says so.
$(BUILD)/deb-packages.ok: tools/deb-packages.list tools/install-packages | packages
	tools/install-packages tools/deb-packages.list && touch $@ || true
test: $(BUILD)/test-packages.ok $(BUILD)/deb-packages.ok
test: all $(TESTS) $(BUILD)/tests/system/damage $(BUILD)/tests/bench/bench $(BUILD)/tests/fault/record_io.so $(BUILD)/tests/fault/fail_io.so $(if $(SAN),$(REPLAYS)) $(EXAMPLE_PROGRAMS) $(COMMANDS)
	@$(MAKE) --no-print-directory FAULTS=1 CFLAGS='-O1 -g' faults
	@$(if $(SAN),:,$(MAKE) --no-print-directory SAN=address,undefined sanitized)
	AZOTH_BUILD=$(BUILD) AZOTH_FAULTS_BUILD=$(FAULTS_BUILD) tests/run $(addprefix $(FAULTS_BUILD)/tests/fault/,$(FAULT)) -- $(TESTS) $(SANITIZED) -- $(REPLAYED) -- $(wildcard tests/system/test_*.sh)

# Threads against each other: those of one process, and those of the programs that the tests start.
TSAN := $(addprefix unit/,test_archive test_chaining test_append_chain test_participants test_segment test_copies test_service test_sockets test_feed) \
        $(addprefix system/,test_library test_follow test_worker test_bank test_embedded_projection)
.PHONY: test-tsan tsan
test-tsan:
	@$(MAKE) --no-print-directory SAN=thread tsan
tsan: all $(COMMANDS) $(addprefix $(BUILD)/tests/,$(TSAN))
	AZOTH_BUILD=$(BUILD) tests/tsan $(addprefix $(BUILD)/tests/,$(TSAN))

# The unit tests under valgrind, which cannot map as much of a file as the store usually does.
.PHONY: test-valgrind valgrind
test-valgrind:
	@$(MAKE) --no-print-directory BUILD=build/v-valgrind CFLAGS='-O1 -g -DSTORE_MAP_BYTES=4294967296ull' valgrind
valgrind: all $(addprefix $(BUILD)/tests/unit/,$(UNIT))
	AZOTH_BUILD=$(BUILD) tests/valgrind $(addprefix $(BUILD)/tests/unit/,$(UNIT))

# The programs and tests with crash points.
FAULTS_BUILD = build/v$(if $(SAN),-$(subst $(comma),-,$(SAN)))-faults$(if $(filter clang%,$(CC)),-clang)
.PHONY: faults
faults: all $(addprefix $(BUILD)/tests/fault/,$(FAULT)) $(BUILD)/tests/fault/shim.so $(BUILD)/tests/fault/fail_io.so $(BUILD)/tests/fault/jump.so

bench: all $(BUILD)/tests/bench/bench
	AZOTH_BUILD=$(BUILD) $(BUILD)/tests/bench/bench $(if $(PAIRS),--pairs $(PAIRS)) $(if $(ROWS),--rows $(ROWS))
bench-growth: all $(BUILD)/tests/bench/bench
	AZOTH_BUILD=$(BUILD) $(BUILD)/tests/bench/bench --growth
# What a backup's file costs beside the zstd command: make bench-backupfile BYTES=100000000 ROUNDS=5.
BENCH_BACKUPFILE := $(BUILD)/tests/bench/backupfile/backupfile
$(BENCH_BACKUPFILE): $(BENCH_BACKUPFILE).o $(BUILD)/libother.a $(BUILD)/libazoth.a
	$(Q)$(CC) $(LINK) $^ $(LIBS_ALL) -o $@
.PHONY: bench-backupfile
bench-backupfile: packages $(BENCH_BACKUPFILE)
	$(BENCH_BACKUPFILE) $(or $(BYTES),1000000000) $(or $(ROUNDS),3)
bench-backup: all
	AZOTH_BUILD=$(BUILD) tests/bench/backup.sh
bench-table:
	@tools/bench-table $(BUILD)/bench.json
# Ends after KILLS, or after SECONDS when that is given.
KILLS ?= 1000
TORTURE_PROGRAM := $(BUILD)/tests/torture/torture $(BUILD)/tests/torture/command.so
faults: $(TORTURE_PROGRAM)
torture: all $(TORTURE_PROGRAM)
	AZOTH_BUILD=$(BUILD) $(BUILD)/tests/torture/torture --kills $(KILLS) \
	  $(if $(filter command environment,$(firstword $(origin SECONDS))),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED))
# make powercut STATES=20000 SEED=7: more states than `make test` looks at.
STATES ?= 10000
POWERCUT := $(BUILD)/tests/fault/test_powercut $(BUILD)/tests/fault/record_io.so
.PHONY: powercut
powercut: all $(POWERCUT)
	AZOTH_BUILD=$(BUILD) AZOTH_CUT_STATES=$(STATES) $(if $(SEED),AZOTH_TEST_SEED=$(SEED)) $(BUILD)/tests/fault/test_powercut
model: $(MODEL_PROGRAMS)
	tests/model/mutate.sh
	$(BUILD)/tests/model/model all
	$(BUILD)/tests/model/chaining

# make fuzz SECONDS=300 FUZZ=fuzz_pages: one of them for longer.
SECONDS ?= 60
FUZZ_BUILD := build/v-fuzz
.PHONY: fuzzing
fuzzing: $(addprefix $(BUILD)/tests/fuzz/,$(FUZZ))
fuzz:
	tools/install-packages tests/fuzz/packages.list
	@$(MAKE) --no-print-directory CC=clang SAN=fuzzer-no-link,address,undefined BUILD=$(FUZZ_BUILD) fuzzing
	tests/fuzz/run $(SECONDS) $(addprefix $(FUZZ_BUILD)/tests/fuzz/,$(FUZZ))

C_FILES := $(wildcard core/*.[ch] shm/*.[ch] writer/*.[ch] workers/*.[ch] projector/*.[ch] effects/*.[ch] exporter/*.[ch] \
             client/*.[ch] client/cmd/*.[ch] tests/*/*.[ch] tests/bench/commands/*.c tests/bench/backupfile/*.c examples/*/*.c)
lint: packages
	tools/lint $(C_FILES)

# What is put where stands in the tool, which also takes it away again.
LIBDIR ?= $(PREFIX)/lib
UNITDIR ?= $(PREFIX)/lib/systemd/system
VERSION = $(shell sed -n 's/^\#define AZOTH_VERSION "\(.*\)"/\1/p' core/azoth_base.h)
INSTALL_TREE = BUILD='$(BUILD)' PROGRAMS='$(PROGRAMS)' VERSION='$(VERSION)' DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' \
  LIBDIR='$(LIBDIR)' UNITDIR='$(UNITDIR)' LIBS_PRIVATE='$(LIBS_STORE) $(LIBS_JSON) $(LIBS_NET) $(LIBS_SQL) $(LIBS_SYS) -ldl -lm -pthread' tools/install-tree
install: all
	@$(INSTALL_TREE) install
uninstall:
	@$(INSTALL_TREE) uninstall

# The packages of Debian, built in a copy of the tree. make deb DEB=DIR puts them elsewhere.
DEB ?= $(BUILD)/deb
.PHONY: deb
deb:
	tools/build-deb $(DEB)
	lintian --allow-root --fail-on error $(DEB)/*.changes

clean:
	rm -rf build

-include $(patsubst %.o,%.d,$(call obj,$(LIB_SRC) $(OTHER_SRC) $(foreach p,$(PROGRAMS),$(MAIN_$(p)))))
-include $(wildcard $(BUILD)/tests/*/*.d $(BUILD)/tests/*/*/*.d $(BUILD)/model/*/*.d $(BUILD)/model/*/*/*.d)
