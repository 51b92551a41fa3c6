// What this library was built with. CMake gives EMBER_BUILD to this file alone.
#include <ember/version.h>

#ifndef EMBER_BUILD
#define EMBER_BUILD "other build"
#endif
#if defined(__clang__)
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif
#if defined(__x86_64__)
#define MACHINE "x86_64"
#elif defined(__aarch64__)
#define MACHINE "aarch64"
#else
#define MACHINE "other"
#endif
#ifdef EMBER_HAVE_ZLIB
#define ZLIB "; zlib"
#else
#define ZLIB "; no zlib"
#endif
#ifdef EMBER_HAVE_ZSTD
#define ZSTD ", zstd"
#else
#define ZSTD ", no zstd"
#endif
#ifdef EMBER_HAVE_LZMA
#define LZMA ", lzma"
#else
#define LZMA ", no lzma"
#endif
#if EMBER_TRAINING
#define TRAINING ""
#else
#define TRAINING "; inference only"
#endif

const char *ember_build_info(void)
{
    return EMBER_BUILD ", " COMPILER ", " MACHINE ZLIB ZSTD LZMA TRAINING;
}
