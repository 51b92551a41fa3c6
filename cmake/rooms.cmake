# One object library per room of src/, and the library of them all. A room's sources are its *.c files,
# at any depth; kernels are compiled once per instruction set.
add_library(ember_warnings INTERFACE)
target_compile_options(ember_warnings INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wcast-qual -Wundef -Wvla
  -Wformat=2 -Wwrite-strings -Wfloat-conversion
  $<$<BOOL:${EMBER_WERROR}>:-Werror>)

add_library(ember_flags INTERFACE)
target_compile_definitions(ember_flags INTERFACE _GNU_SOURCE EMBER_TRAINING=$<BOOL:${EMBER_TRAINING}>)
target_compile_options(ember_flags INTERFACE -ffp-contract=off -fno-math-errno)
if(NOT CMAKE_BUILD_TYPE STREQUAL Debug)
  target_compile_options(ember_flags INTERFACE -ffunction-sections -fdata-sections) # to be left out where unused
endif()
if(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64" AND CMAKE_C_COMPILER_ID STREQUAL GNU AND CMAKE_C_COMPILER_VERSION VERSION_LESS 13)
  # GCC 12 for aarch64 crashes at -O3 on loops like m = fmax(m, (double)x[i]); the vectoriser of -O2 does not.
  target_compile_options(ember_flags INTERFACE -fvect-cost-model=very-cheap)
endif()
if(EMBER_SANITIZE)
  target_compile_options(ember_flags INTERFACE -fsanitize=${EMBER_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(ember_flags INTERFACE -fsanitize=${EMBER_SANITIZE})
endif()
if(EMBER_FUZZ)
  target_compile_options(ember_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

set(EMBER_ROOMS base registry kernels tensor distributed ops formats text nn models data report train infer bench server api)

# A library that only runs models is without these; src/api/no_training.c answers in their place.
# Backward passes and their kernels leave by the tables that name them (EM_PASSES, EM_TRAINING_KERNEL).
set(EMBER_TRAINING_ONLY "/src/(data|report|train|bench)/"
  "/src/api/(train|bench|plan|eval|experts|experts_saturation|tokenizer_train)\\.c$" "/src/infer/perplexity\\.c$"
  "/src/text/(bpe_train|bpe_learn|word_counts)\\.c$")

# What others have to bring. The core needs the first two.
add_library(ember_needs INTERFACE)
target_link_libraries(ember_needs INTERFACE Threads::Threads m ${CMAKE_DL_LIBS})
function(ember_need prefix package)
  if(${prefix}_FOUND)
    target_link_libraries(ember_needs INTERFACE PkgConfig::${prefix})
    target_compile_definitions(ember_flags INTERFACE EMBER_HAVE_${prefix}=1)
    set_property(GLOBAL APPEND PROPERTY EMBER_PC_REQUIRES ${package})
    set_property(GLOBAL APPEND PROPERTY EMBER_STATIC_NEEDS ${${prefix}_LIBRARIES})
  endif()
endfunction()
ember_need(JANSSON jansson)
ember_need(XXHASH libxxhash)
if(EMBER_TRAINING) # they unpack texts to train on
  ember_need(ZLIB zlib)
  ember_need(ZSTD libzstd)
  ember_need(LZMA liblzma)
endif()

# The target `ember` carries everything, with the names that rooms share visible: for the program and
# the tests. What is shipped stands in install.cmake.
add_library(ember STATIC)
set_target_properties(ember PROPERTIES OUTPUT_NAME ember_rooms)
target_include_directories(ember PUBLIC include PRIVATE src)
target_link_libraries(ember PUBLIC ember_needs PRIVATE $<BUILD_INTERFACE:ember_flags>)

# A program that loads plug-ins: it has all of the library, and shows them what begins with ember_.
function(ember_loads_plugins target)
  set_target_properties(${target} PROPERTIES LINK_DEPENDS ${CMAKE_SOURCE_DIR}/cmake/exports.list)
  target_link_options(${target} PRIVATE LINKER:--dynamic-list=${CMAKE_SOURCE_DIR}/cmake/exports.list)
  # Before the other libraries, in which whatever they still miss is found as usual.
  target_link_options(${target} PRIVATE LINKER:--whole-archive $<TARGET_FILE:ember> LINKER:--no-whole-archive)
endfunction()

function(ember_room_target name)
  target_include_directories(${name} PRIVATE include src)
  target_link_libraries(${name} PRIVATE ember_flags ember_warnings PkgConfig::JANSSON PkgConfig::XXHASH)
  target_compile_options(${name} PRIVATE -Wdouble-promotion)
  target_sources(ember PRIVATE $<TARGET_OBJECTS:${name}>)
  set_property(GLOBAL APPEND PROPERTY EMBER_OBJECTS $<TARGET_OBJECTS:${name}>)
endfunction()

foreach(room IN LISTS EMBER_ROOMS)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS src/${room}/*.c)
  list(FILTER sources EXCLUDE REGEX "/kernels/isa/")
  if(EMBER_TRAINING)
    list(FILTER sources EXCLUDE REGEX "/src/api/no_training\\.c$")
  else()
    foreach(pattern IN LISTS EMBER_TRAINING_ONLY)
      list(FILTER sources EXCLUDE REGEX "${pattern}")
    endforeach()
  endif()
  if(sources)
    add_library(room_${room} OBJECT ${sources})
    ember_room_target(room_${room})
  endif()
endforeach()

# Kernel sources: src/kernels/isa/*.c, once per instruction set of the target architecture. Like everything else they
# are compiled with -ffp-contract=off: where a*b+c is one FMA the source says so, so that what one kernel rounds does
# not hang on what the compiler makes of the next.
function(ember_kernels isa)
  file(GLOB kernel_sources CONFIGURE_DEPENDS src/kernels/isa/*.c)
  if(NOT kernel_sources)
    return()
  endif()
  add_library(kernels_${isa} OBJECT ${kernel_sources})
  ember_room_target(kernels_${isa})
  target_compile_definitions(kernels_${isa} PRIVATE EM_ISA=${isa} EM_ISA_${isa}=1)
  target_compile_options(kernels_${isa} PRIVATE $<$<NOT:$<CONFIG:Debug>>:-O3> ${ARGN})
endfunction()

# Sources for one instruction beyond their set; elsewhere they are empty, or hand on to what the set has.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set_source_files_properties(src/kernels/isa/attention_bf16.c src/kernels/isa/attention_gradient_bf16.c
    PROPERTIES COMPILE_OPTIONS -mavx512bf16)
  set_source_files_properties(src/kernels/isa/gemm_i8_dot.c PROPERTIES COMPILE_OPTIONS -mavx512vnni)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
  set_source_files_properties(src/kernels/isa/gemm_bf16_matrix.c src/kernels/isa/attention_bf16.c
    src/kernels/isa/attention_gradient_bf16.c PROPERTIES COMPILE_OPTIONS -march=armv8.2-a+bf16)
  set_source_files_properties(src/kernels/isa/gemm_i8_dot.c PROPERTIES COMPILE_OPTIONS -march=armv8.2-a+dotprod)
  set_source_files_properties(src/kernels/isa/gemm_i8_matrix.c PROPERTIES COMPILE_OPTIONS -march=armv8.2-a+i8mm)
endif()

if(EMBER_FUZZ)
  # Parsers are what is fuzzed: sanitizers and coverage in unrolled kernels only take clang minutes a file. Options of a
  # source follow those of every target, so they have the last word.
  file(GLOB kernel_sources CONFIGURE_DEPENDS src/kernels/isa/*.c)
  set_property(SOURCE ${kernel_sources} APPEND PROPERTY COMPILE_OPTIONS -O1 -fno-sanitize=all)
endif()

ember_kernels(scalar)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  ember_kernels(avx2 -mavx2 -mfma -mf16c)
  ember_kernels(avx512 -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
  ember_kernels(neon)
endif()
