# Berth's own commands. The two that matter to a stranger: make demo, make test.
# Everything is pure Go (CGO_ENABLED=0) and static; what is built lands in bin/.

export CGO_ENABLED := 0
export GOFLAGS := $(GOFLAGS) -trimpath -buildvcs=false

# The channel of what is built, edge or stable; see install/version.
CHANNEL ?= edge
VERSION ?= $(shell install/version $(CHANNEL))
COMMIT  ?= $(shell git rev-parse --short HEAD 2>/dev/null || echo unknown)
BUILT   ?= $(shell TZ=UTC0 git log -1 --format=%cd --date=format-local:%Y-%m-%dT%H:%M:%SZ 2>/dev/null)
# Every command declares main.version and main.commit and hands them down; nothing reads them from below.
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT) -X main.built=$(BUILT)
# The entry point for programs that live for milliseconds, see kernel/shortlived: a quarter of the time.
SHORTLIVED := -E _berth_shortlived

PREFIX  ?= /usr/local
DESTDIR ?=
ARCH    ?= amd64
COUNT   ?= 1
FUZZTIME ?= 20s

COMMANDS := $(notdir $(wildcard cmd/*))
REPORT   := go run ./test/report

# Without Go there is nothing to build with: only what was built can be installed, and the demo says it by itself.
ifeq ($(shell command -v go 2>/dev/null),)
ifneq ($(filter-out help install uninstall clean demo,$(or $(MAKECMDGOALS),build)),)
$(error Go is not on PATH, and is needed to build and test: see https://go.dev/dl)
endif
endif

.DEFAULT_GOAL := build
.PHONY: build cross cross-linux-arm64 check fmt vet lint floor test test-oci bench soak fuzz demo test-vm package package-arm64 install uninstall clean help

help: ## what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

build: ## static binaries for this machine into bin/
	go build -ldflags '$(LDFLAGS)' -o bin/ $(addprefix ./cmd/,$(filter-out berth-oci,$(COMMANDS)))
	go build -ldflags '$(LDFLAGS) $(SHORTLIVED)' -o bin/ ./cmd/berth-oci

cross: cross-linux-arm64 cross-darwin-arm64 cross-darwin-amd64 cross-windows-amd64 ## linux/arm64 for everything, darwin and windows for the command line, into bin/OS-ARCH/

cross-linux-arm64:
	GOOS=linux GOARCH=arm64 go build -ldflags '$(LDFLAGS)' -o bin/linux-arm64/ $(addprefix ./cmd/,$(filter-out berth-oci,$(COMMANDS)))
	GOOS=linux GOARCH=arm64 go build -ldflags '$(LDFLAGS) $(SHORTLIVED)' -o bin/linux-arm64/ ./cmd/berth-oci
cross-darwin-%:
	GOOS=darwin GOARCH=$* go build -ldflags '$(LDFLAGS)' -o bin/darwin-$*/ ./cmd/berth ./cmd/berth-compose
cross-windows-%:
	GOOS=windows GOARCH=$* go build -ldflags '$(LDFLAGS)' -o bin/windows-$*/ ./cmd/berth ./cmd/berth-compose

check: build floor fmt vet lint cross-linux-arm64 cross-darwin-arm64 cross-windows-amd64 test ## what CI runs: build, floor test, format, vet, staticcheck, other systems, all tests

fmt: ## complains about files that gofmt would change
	@bad=$$(gofmt -l $$(git ls-files '*.go' 2>/dev/null || find . -name '*.go' -not -path './.cache/*')) || exit 1; \
	if [ -n "$$bad" ]; then echo "not as gofmt writes it:"; echo "$$bad"; exit 1; fi

vet:
	go vet ./...

lint: .cache/bin/staticcheck ## staticcheck, at the version that test/tools/go.mod pins
	.cache/bin/staticcheck ./...

.cache/bin/staticcheck: test/tools/go.mod test/tools/go.sum
	@mkdir -p .cache/bin
	cd test/tools && go build -o ../../.cache/bin/staticcheck honnef.co/go/tools/cmd/staticcheck

floor: ## the import rules of docs/house.md
	go test -count=1 .

test: build ## all tests; as root on Debian it first installs what they need
	@test/need $$(cat test/packages)
	@mkdir -p .cache
	$(REPORT) -json .cache/test.json -- -count=$(COUNT) -timeout 40m ./...

test-oci: build ## the runtime specification's own validation programs against berth-oci, and runc's tests where bats is installed
	test/oci/run
	test/oci/bats

bench: build ## figures beside the budgets, paired with crun, runc, docker and podman where found
	@test/need busybox-static crun runc
	go run ./test/bench $(BENCH)

soak: build ## the long variants of the crash and load tests
	@test/need $$(cat test/packages)
	BERTH_SOAK=1000 $(REPORT) -- -count=1 -timeout 6h $(or $(PKG),./...)

fuzz: ## every fuzz test for FUZZTIME
	@test/fuzz $(FUZZTIME) $(PKG)

demo: ## the main job, shown: builds, starts an engine of its own, runs real containers, cleans up
	@test/demo/run

test-vm: ## the tests in a virtual machine with pure cgroup v2 (ARCH=arm64 for the other one)
	test/vm/run $(ARCH)

package: build .cache/bin/nfpm ## .deb, .rpm and tarball into dist/ (CHANNEL=edge or stable)
	@CHANNEL=$(CHANNEL) VERSION=$(VERSION) ARCH=amd64 NFPM=.cache/bin/nfpm install/package/build

package-arm64: build cross-linux-arm64 .cache/bin/nfpm
	@CHANNEL=$(CHANNEL) VERSION=$(VERSION) ARCH=arm64 BIN=bin/linux-arm64 HOST_BERTH=bin/berth NFPM=.cache/bin/nfpm install/package/build

.cache/bin/nfpm: install/package/go.mod install/package/go.sum
	@mkdir -p .cache/bin
	cd install/package && go build -o ../../.cache/bin/nfpm github.com/goreleaser/nfpm/v2/cmd/nfpm

install: ## binaries, systemd units, completion and a docker context; see install/install.sh
	@# sudo often has no go on its PATH: then what make build left in bin/ is installed
	@if command -v go >/dev/null; then $(MAKE) --no-print-directory build; fi
	PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' DOCKER='$(DOCKER)' install/install.sh

uninstall: ## takes away what install put there; leaves /var/lib/berth alone
	PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' install/uninstall.sh

clean:
	rm -rf bin dist .cache
