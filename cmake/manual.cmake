# Man pages and completion of shells: the program makes them from its tables of options. Included after
# install.cmake, whose target `product` they join.
set(build "$<CONFIG> build")
if(EMBER_SANITIZE)
  set(build "${build} with -fsanitize=${EMBER_SANITIZE}")
endif()
set_property(SOURCE src/api/build_info.c APPEND PROPERTY COMPILE_DEFINITIONS "EMBER_BUILD=\"${build}\"")

if(CMAKE_CROSSCOMPILING OR EMBER_SANITIZE OR EMBER_FUZZ)
  return() # the program is not run by its own build
endif()

set(manual ${CMAKE_BINARY_DIR}/manual)
file(MAKE_DIRECTORY ${manual})
set(pages ember.1)
set(commands COMMAND ember_cli --help=man > ember.1)
file(STRINGS cli/commands.def lines REGEX "^COMMAND\\(")
foreach(line IN LISTS lines)
  string(REGEX REPLACE "^COMMAND\\((.*)\\)" "\\1" name ${line})
  list(APPEND pages ember-${name}.1)
  list(APPEND commands COMMAND ember_cli ${name} --help=man > ember-${name}.1)
endforeach()
list(TRANSFORM pages PREPEND ${manual}/)
add_custom_command(OUTPUT ${pages} ${manual}/ember.bash ${manual}/_ember ${manual}/ember.fish
  ${commands}
  COMMAND ember_cli --help=bash > ember.bash
  COMMAND ember_cli --help=zsh > _ember
  COMMAND ember_cli --help=fish > ember.fish
  WORKING_DIRECTORY ${manual} DEPENDS ember_cli COMMENT "Man pages and completion")
add_custom_target(manual ALL DEPENDS ${pages})
if(TARGET product)
  add_dependencies(product manual)
endif()

install(FILES ${pages} DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES ${manual}/ember.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME ember)
install(FILES ${manual}/_ember DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
install(FILES ${manual}/ember.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
