# SPDX-License-Identifier: Apache-2.0
# epbench: everything is built out of tree, in build/. `make help` lists the targets.
MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := all
.DELETE_ON_ERROR:

VERSION := 0.1.0
B ?= build
V ?= 0
Q := $(if $(filter 1,$(V)),,@)
PKG_CONFIG ?= pkg-config
CXX ?= c++
GIT_ID := $(shell git describe --always --dirty --exclude '*' 2>/dev/null)

# Flags of ours come first, so that CFLAGS, CXXFLAGS, LDFLAGS and LDLIBS of the user win.
WARNINGS := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla
CXX_WARNINGS := -Wall -Wextra -Wshadow
WERROR := $(if $(filter 1,$(EP_WERROR)),-Werror)
OPT ?= -O3
OPENMP ?= -fopenmp
override C_ALL = -std=c11 -D_GNU_SOURCE -I. $(OPT) -g $(WARNINGS) $(WERROR) $(SANITIZE) $(CFLAGS)
override CXX_ALL = -std=c++17 -I. $(OPT) -g $(CXX_WARNINGS) $(WERROR) $(SANITIZE) $(CXXFLAGS)

# Libraries: NAME:pkg-config names, any of which will do:header:Debian package
LIBRARIES := \
  MPI:ompi-c,ompi,mpich,mvapich2:mpi.h:libopenmpi-dev \
  HWLOC:hwloc:hwloc.h:libhwloc-dev \
  BENCHMARK:benchmark:benchmark/benchmark.h:libbenchmark-dev \
  GSL:gsl:gsl/gsl_math.h:libgsl-dev \
  JANSSON:jansson:jansson.h:libjansson-dev \
  ZLIB:zlib:zlib.h:zlib1g-dev \
  CBLAS:openblas,blis,cblas:cblas.h:libopenblas-dev \
  ONEDNN:dnnl,onednn:dnnl.h:libdnnl-dev \
  RANDOM123:random123:Random123/philox.h:librandom123-dev \
  CMOCKA:cmocka:cmocka.h:libcmocka-dev
ONEDNN_LIBS_ELSE := -ldnnl
RANDOM123_LIBS_ELSE :=
ZLIB_LIBS_ELSE := -lz

comma := ,
open := (
close := )
field = $(word $(2),$(subst :, ,$(1)))
first_pc = $(firstword $(foreach p,$(subst $(comma), ,$(call field,$(1),2)),$(shell $(PKG_CONFIG) --exists $(p) 2>/dev/null && echo $(p))))
define find_library
$(call field,$(1),1)_PC := $$(call first_pc,$(1))
$(call field,$(1),1)_CFLAGS := $$(if $$($(call field,$(1),1)_PC),$$(shell $(PKG_CONFIG) --cflags $$($(call field,$(1),1)_PC)))
$(call field,$(1),1)_LIBS := $$(if $$($(call field,$(1),1)_PC),$$(shell $(PKG_CONFIG) --libs $$($(call field,$(1),1)_PC)),$$($(call field,$(1),1)_LIBS_ELSE))
ifeq ($$(shell printf '#include <$(call field,$(1),3)>\n' | $$(if $$(filter benchmark/%,$(call field,$(1),3)),$(CXX) -std=c++17 -x c++,$(CC) -include stdarg.h -include stddef.h -include stdint.h -include setjmp.h -x c) $$($(call field,$(1),1)_CFLAGS) -E - >/dev/null 2>&1 && echo found),)
MISSING += $(call field,$(1),1)/$(call field,$(1),4)
endif
endef

# Targets that build nothing of ours must work before the libraries are there.
NO_LIBRARY_GOALS := help clean bootstrap check report format fuzz
ifneq ($(filter-out $(NO_LIBRARY_GOALS),$(or $(MAKECMDGOALS),all)),)
ifeq ($(shell command -v $(PKG_CONFIG) 2>/dev/null),)
MISSING += pkg-config/pkg-config
endif
ifeq ($(shell command -v $(firstword $(CC)) 2>/dev/null),)
MISSING += $(firstword $(CC))/gcc
endif
ifeq ($(shell command -v $(firstword $(CXX)) 2>/dev/null),)
MISSING += $(firstword $(CXX))/g++
endif
$(foreach l,$(LIBRARIES),$(eval $(call find_library,$(l))))
ifneq ($(MISSING),)
$(foreach m,$(MISSING),$(info missing: $(subst /, $(open)Debian package ,$(m))$(close)))
$(error libraries are missing, see above; `make bootstrap` installs them on Debian and its kin)
endif
endif

# System headers, so that their warnings are not ours.
system = $(patsubst -I%,-isystem %,$(1))

# `make simulated` builds the same program for SimGrid's MPI: every rank a copy of it in one process.
SMPICC ?= smpicc
HAS_SMPI := $(shell command -v $(SMPICC) 2>/dev/null)
ifeq ($(SIMULATED),1)
MPI_CFLAGS := -I$(abspath $(dir $(HAS_SMPI))..)/include/smpi
MPI_LIBS := -lsimgrid
override C_ALL += -fPIC -DEP_SIMULATED
override CXX_ALL += -fPIC
override LDFLAGS += -shared -Wl,-z,defs -Wl,-Bsymbolic -s
endif

# --- sources ---------------------------------------------------------------------------------
FOLDERS := base topologies kernels results plots bench
SOURCES := $(foreach d,$(FOLDERS),$(wildcard $(d)/*.c))
OBJECTS := $(SOURCES:%.c=$(B)/%.o) $(patsubst %.cc,$(B)/%.o,$(wildcard bench/*.cc))
EMBED := $(sort $(wildcard kernels/data/*.csv results/published/*.csv plots/*.gp plots/*.css plots/*.html topologies/catalogue/*))
GEN := $(B)/gen/embedded_files.o

# A library's headers are visible only where the design lets them in.
$(B)/base/%.o: DOORS = $(GSL_CFLAGS) $(JANSSON_CFLAGS) $(RANDOM123_CFLAGS) $(ZLIB_CFLAGS)
$(B)/topologies/%.o: DOORS = $(HWLOC_CFLAGS) $(JANSSON_CFLAGS)
$(B)/kernels/%.o: DOORS = $(CBLAS_CFLAGS) $(ONEDNN_CFLAGS) $(JANSSON_CFLAGS) $(GSL_CFLAGS)
$(B)/results/%.o: DOORS = $(GSL_CFLAGS) $(JANSSON_CFLAGS)
$(B)/plots/%.o: DOORS = $(JANSSON_CFLAGS)
$(B)/bench/xfer_%.o: C_ALL += $(OPENMP)
$(B)/bench/%.o: DOORS = $(MPI_CFLAGS) $(BENCHMARK_CFLAGS) $(JANSSON_CFLAGS)
$(B)/tests/%.o: DOORS = $(CMOCKA_CFLAGS) $(JANSSON_CFLAGS) $(GSL_CFLAGS) $(MPI_CFLAGS)
$(B)/bench/version.o: C_ALL += -DEP_VERSION='"$(VERSION)$(if $(GIT_ID),+g$(GIT_ID))"' -DEP_FLAGS='"$(call quoted,$(subst ",\",$(OPT) $(SANITIZE) $(CFLAGS)))"'

LIBS_CORE = $(HWLOC_LIBS) $(CBLAS_LIBS) $(ONEDNN_LIBS) $(GSL_LIBS) $(JANSSON_LIBS) $(ZLIB_LIBS) -lpthread -lm
LIBS_ALL = $(OPENMP) $(MPI_LIBS) $(BENCHMARK_LIBS) $(LIBS_CORE)

.PHONY: all
all: $(B)/epbench ## Build the program, build/epbench

$(B)/epbench: $(OBJECTS) $(GEN)
	@echo "  LINK  $@"
	$(Q)$(CXX) $(OPT) $(SANITIZE) $(LDFLAGS) -o $@ $^ $(LIBS_ALL) $(LDLIBS)

# The flags are part of the build: changing them rebuilds.
FLAGS_TEXT := $(CC) $(CXX) $(OPT) $(WERROR) $(SANITIZE) $(CFLAGS) $(CXXFLAGS) $(LDFLAGS) $(LDLIBS)$(SIMULATED)
quoted = $(subst ','\'',$(1))
$(B)/flags: FORCE
	@mkdir -p $(@D); echo '$(call quoted,$(FLAGS_TEXT))' | cmp -s - $@ || echo '$(call quoted,$(FLAGS_TEXT))' > $@
$(B)/version: FORCE
	@mkdir -p $(@D); echo '$(VERSION) $(GIT_ID)' | cmp -s - $@ || echo '$(VERSION) $(GIT_ID)' > $@
$(B)/bench/version.o: $(B)/version
FORCE:
.PHONY: FORCE

$(B)/%.o: %.c $(B)/flags
	@mkdir -p $(@D); echo "  CC    $<"
	$(Q)$(CC) $(call system,$(DOORS)) $(C_ALL) -MMD -MP -c -o $@ $<

$(B)/%.o: %.cc $(B)/flags
	@mkdir -p $(@D); echo "  CXX   $<"
	$(Q)$(CXX) $(call system,$(DOORS)) $(CXX_ALL) -MMD -MP -c -o $@ $<

$(B)/gen/embedded_files.c: scripts/embed $(EMBED) Makefile
	@mkdir -p $(@D); echo "  EMBED $@"
	$(Q)scripts/embed $(EMBED) > $@

$(GEN): $(B)/gen/embedded_files.c
	$(Q)$(CC) $(C_ALL) -c -o $@ $<

# --- tests -----------------------------------------------------------------------------------
# tests/test_*.c: cmocka programs without MPI. tests/mpi_*.c: run on 1, 2, 3 and 5 ranks.
# tests/cli_*.sh: the program as users call it. Each may use everything but bench/epbench.c.
UNIT_TESTS := $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/test_*.c))
MPI_TESTS := $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/mpi_*.c))
# tests/fuzz_*.c: parsers of what comes from outside; their corpus is a test, `make fuzz` searches on.
FUZZ_TESTS := $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/fuzz_*.c))
# Helpers of tests: what several of them link, and programs tests/make_*.c that make their input.
TEST_HELPERS := $(B)/tests/planted.o
TEST_MAKERS := $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/make_*.c))
CORE_OBJECTS := $(patsubst %.c,$(B)/%.o,$(foreach d,base topologies kernels results plots,$(wildcard $(d)/*.c)) $(wildcard bench/harness.c bench/layer_waits.c bench/overlap_plan.c bench/suite_scale.c bench/uplinks.c))
BENCH_OBJECTS := $(filter-out $(B)/bench/epbench.o,$(OBJECTS))

$(UNIT_TESTS) $(TEST_MAKERS): $(B)/tests/%: $(B)/tests/%.o $(TEST_HELPERS) $(CORE_OBJECTS) $(GEN)
	@echo "  LINK  $@"
	$(Q)$(CC) $(OPT) $(SANITIZE) $(LDFLAGS) -o $@ $^ $(CMOCKA_LIBS) $(LIBS_CORE) $(LDLIBS)

# FUZZER is set by `make fuzz` alone: libFuzzer brings its own main then.
$(FUZZ_TESTS): $(B)/tests/%: $(B)/tests/%.o $(B)/tests/corpus_support.o $(if $(FUZZER),,$(B)/tests/corpus_main.o) $(CORE_OBJECTS) $(GEN)
	@echo "  LINK  $@"
	$(Q)$(CC) $(OPT) $(SANITIZE) $(FUZZER) $(LDFLAGS) -o $@ $^ $(LIBS_CORE) $(LDLIBS)

$(MPI_TESTS): $(B)/tests/%: $(B)/tests/%.o $(BENCH_OBJECTS) $(GEN)
	@echo "  LINK  $@"
	$(Q)$(CXX) $(OPT) $(SANITIZE) $(LDFLAGS) -o $@ $^ $(CMOCKA_LIBS) $(LIBS_ALL) $(LDLIBS)

.PHONY: fuzz fuzz-targets tests check-built check-unit check check-asan check-valgrind check-vcluster simulated lint report bootstrap format clean help install
.SECONDARY:
tests: $(B)/epbench $(UNIT_TESTS) $(FUZZ_TESTS) $(MPI_TESTS) $(TEST_MAKERS) $(if $(HAS_SMPI),simulated) ## Build the program and all tests

check: ## Install what is missing, build, and pass all tests
	$(Q)scripts/bootstrap
	$(Q)$(MAKE) check-built

check-built: tests ## The tests alone, nothing installed
	$(Q)B=$(B) tests/run $(TESTS)

check-unit: $(UNIT_TESTS) $(FUZZ_TESTS) # the tests that need no MPI
	$(Q)B=$(B) tests/run unit

check-asan: ## Unit tests under AddressSanitizer and UBSan
	$(Q)$(MAKE) B=$(B)/asan OPT=-O1 SANITIZE="-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer" check-unit

check-valgrind: $(UNIT_TESTS) ## Unit tests under valgrind, but GEMM's: it cannot translate their unrolled loops
	$(Q)UNDER="valgrind -q --error-exitcode=9 --leak-check=full --child-silent-after-fork=yes --suppressions=tests/valgrind.supp" B=$(B) \
	    tests/run $(filter-out test_gemm,$(notdir $(UNIT_TESTS)))

check-vcluster: all ## Test scripts/vcluster, where the system allows namespaces
	$(Q)B=$(B) tests/vcluster.sh || [ $$? = 77 ]

fuzz-targets: $(FUZZ_TESTS)

fuzz: ## Search for input that breaks a parser, FUZZ_S seconds each (clang)
	$(Q)B=$(B)/fuzz scripts/fuzz

lint: $(B)/gen/embedded_files.c ## cppcheck, and the rules on includes
	$(Q)B=$(B) scripts/lint

report: ## Install what is missing, build, run the quick suite, name the report
	$(Q)scripts/bootstrap
	$(Q)$(MAKE) all
	$(Q)$(B)/epbench run --profile quick

bootstrap: ## Install the Debian packages that are missing
	$(Q)scripts/bootstrap

format: ## clang-format over all C and C++ sources
	$(Q)clang-format -i $$(git ls-files '*.c' '*.h' '*.cc')

PREFIX ?= /usr/local
simulated: ## Build build/simulated/epbench, which runs in simulated time (scripts/simulate; SimGrid)
	$(Q)[ -n "$(HAS_SMPI)" ] || { echo "simulated: $(SMPICC) is missing (Debian package libsimgrid-dev)" >&2; exit 3; }
	$(Q)$(MAKE) SIMULATED=1 B=$(B)/simulated OPT=-O2 all

install: all ## Copy the program to $(DESTDIR)$(PREFIX)/bin
	install -D -m 755 $(B)/epbench $(DESTDIR)$(PREFIX)/bin/epbench

clean: ## Remove build/
	rm -rf $(B)

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

-include $(wildcard $(B)/*/*.d)
