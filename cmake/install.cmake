# What is shipped: the program, libember shared and static, the headers, and the files by which
# pkg-config and CMake find them. Both libraries define what <ember/...> declares and nothing else.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
get_property(objects GLOBAL PROPERTY EMBER_OBJECTS)

# Symbols have the ABI's number as their version, so that two ABIs can meet in one process.
configure_file(cmake/libember.map.in generated/libember.map @ONLY)
set(map ${CMAKE_BINARY_DIR}/generated/libember.map)
add_library(ember_shared SHARED ${objects})
set_target_properties(ember_shared PROPERTIES OUTPUT_NAME ember VERSION ${PROJECT_VERSION}
  SOVERSION ${EMBER_ABI} LINKER_LANGUAGE C LINK_DEPENDS ${map})
target_link_libraries(ember_shared PRIVATE ember_needs ember_flags)
target_link_options(ember_shared PRIVATE LINKER:--version-script=${map} LINKER:-Bsymbolic-functions
  LINKER:--no-undefined LINKER:--gc-sections)

if(EMBER_SANITIZE) # for tests only
  return()
endif()

# An archive cannot hide what its members share. So it has one member: all of them linked into one
# object, in which hidden names are made local. Functions keep sections of their own, and a program
# linked with --gc-sections takes what it uses.
set(archive ${CMAKE_BINARY_DIR}/libember.a)
set(object ${CMAKE_BINARY_DIR}/ember.o)
add_custom_command(OUTPUT ${archive}
  COMMAND ${CMAKE_C_COMPILER} -r -nostdlib -Wl,--gc-sections,--gc-keep-exported -Wl,--whole-archive $<TARGET_FILE:ember> -o ${object}
  COMMAND ${CMAKE_OBJCOPY} --localize-hidden ${object}
  COMMAND ${CMAKE_COMMAND} -E rm -f ${archive}
  COMMAND ${CMAKE_AR} qcs ${archive} ${object}
  COMMAND ${CMAKE_COMMAND} -E rm -f ${object}
  DEPENDS ember VERBATIM)
add_custom_target(ember_static ALL DEPENDS ${archive})
add_custom_target(product DEPENDS ember_cli ember_shared ember_static) # what `make install` builds

# Found from where they lie, so that an installed tree can be moved.
set(package ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
file(RELATIVE_PATH EMBER_PREFIX_FROM_PC ${CMAKE_INSTALL_PREFIX}/${package} ${CMAKE_INSTALL_PREFIX})
string(REGEX REPLACE "/$" "" EMBER_PREFIX_FROM_PC ${EMBER_PREFIX_FROM_PC})
foreach(kind IN ITEMS LIBDIR INCLUDEDIR)
  if(IS_ABSOLUTE ${CMAKE_INSTALL_${kind}})
    set(EMBER_PC_${kind} ${CMAKE_INSTALL_${kind}})
  else()
    set(EMBER_PC_${kind} "\${prefix}/${CMAKE_INSTALL_${kind}}")
  endif()
endforeach()
get_property(EMBER_PC_REQUIRES GLOBAL PROPERTY EMBER_PC_REQUIRES)
get_property(EMBER_STATIC_NEEDS GLOBAL PROPERTY EMBER_STATIC_NEEDS)
list(JOIN EMBER_PC_REQUIRES " " EMBER_PC_REQUIRES)
set(EMBER_PC_DL ${CMAKE_DL_LIBS})
list(APPEND EMBER_STATIC_NEEDS m ${CMAKE_DL_LIBS})
list(TRANSFORM EMBER_PC_DL PREPEND -l)
configure_file(cmake/ember.pc.in generated/ember.pc @ONLY)
set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/ember)
configure_package_config_file(cmake/ember-config.cmake.in generated/ember-config.cmake
  INSTALL_DESTINATION ${package_folder} PATH_VARS CMAKE_INSTALL_LIBDIR CMAKE_INSTALL_INCLUDEDIR)
write_basic_package_version_file(generated/ember-config-version.cmake COMPATIBILITY SameMinorVersion)

install(TARGETS ember_cli RUNTIME)
install(TARGETS ember_shared LIBRARY)
install(FILES ${archive} DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY include/ember DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
install(FILES ${CMAKE_BINARY_DIR}/generated/ember.pc DESTINATION ${package})
install(FILES ${CMAKE_BINARY_DIR}/generated/ember-config.cmake
  ${CMAKE_BINARY_DIR}/generated/ember-config-version.cmake DESTINATION ${package_folder})
install(FILES LICENSE README.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
