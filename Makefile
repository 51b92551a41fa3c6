# The few things to type. Everything is built and written under build/; CMakePresets.json has the details.
.POSIX:
.PHONY: all demo test ci compare format clean

all:
	@tools/setup.sh build
	@cmake --preset release
	@cmake --build --preset release

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

format:
	@git ls-files '*.c' '*.h' | xargs clang-format -i

clean:
	rm -rf build
