/**
 * @file version.h  The version, and what it promises.
 *
 * EMBER_ABI is the number in the shared library's name, libember.so.0. It changes when a program
 * that was compiled with an earlier release could misbehave: a function, a structure's layout or a
 * value was changed or removed. While it stays, programs run with any later library without being
 * compiled again. What is not declared in <ember/...> is not promised, and not visible.
 */
#ifndef EMBER_VERSION_H
#define EMBER_VERSION_H

#include <ember/status.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EMBER_VERSION_MAJOR 0
#define EMBER_VERSION_MINOR 1
#define EMBER_VERSION_PATCH 0
#define EMBER_VERSION "0.1.0"
#define EMBER_ABI 0

/**
 * EMBER_VERSION and EMBER_ABI of the library that runs, as its own headers had them; static. A
 * program that finds another EMBER_ABI here was compiled for another library. Threads: any, at any
 * time.
 */
EMBER_API const char *ember_version(void);
EMBER_API int ember_abi(void);

/**
 * The build as one line: "Release build, gcc 12.2.0, x86_64; zlib, zstd, lzma"; static. Threads:
 * any, at any time.
 */
EMBER_API const char *ember_build_info(void);

#ifdef __cplusplus
}
#endif
#endif
