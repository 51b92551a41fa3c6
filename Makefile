# The few things to type. Everything is built and written under build/; CMakePresets.json has the details.
.POSIX:
.PHONY: all install deb demo test ci compare docs format clean
PREFIX = /usr/local
DESTDIR =

all:
	@tools/setup.sh build
	@cmake --preset release
	@cmake --build --preset release

# The program, libember shared and static, headers, and the files by which pkg-config and CMake find them:
# make install PREFIX=/usr DESTDIR=/somewhere
install:
	@tools/setup.sh build
	@cmake --preset release
	@cmake --build --preset release --target product
	@DESTDIR='$(DESTDIR)' cmake --install build/release --prefix '$(PREFIX)'

# Debian packages, in build/deb.
deb:
	@tools/setup.sh build deb
	@cmake --preset release
	@cmake --build --preset release --target product
	@tools/deb.sh build/release build/deb

# Real text, four minutes of training, a report.
demo:
	@tools/setup.sh build demo
	@cmake --preset release
	@cmake --build --preset release --target ember_cli
	@tools/demo.sh

# Every test, as a release and with the address and undefined-behaviour sanitizers.
test:
	@tools/setup.sh build test
	@cmake --preset release
	@cmake --build --preset release
	@ctest --preset release --parallel $$(nproc)
	@cmake --preset dev
	@cmake --build --preset dev
	@ctest --preset dev --parallel $$(nproc)

# The tests, then aarch64 under qemu and a minute of fuzzing for each parser.
ci: test
	@tools/setup.sh build test ci
	@tools/ci.sh

# Side by side with reference implementations (needs Python).
compare:
	@tools/compare.sh

# What is made from the option tables: docs/components.md.
docs:
	@cmake --preset release
	@cmake --build --preset release --target ember_cli
	@build/release/ember registry --markdown >build/components.md
	@mv build/components.md docs/components.md

format:
	@git ls-files '*.c' '*.h' | xargs clang-format -i

clean:
	rm -rf build
