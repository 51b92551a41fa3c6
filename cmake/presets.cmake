# configs/*.json go into the library as bytes, so that the program works alone: the table em_presets of
# src/train/presets.h.
file(GLOB presets CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/configs/*.json)
set(arrays "")
set(rows "")
set(number 0)
foreach(preset IN LISTS presets)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${preset})
  get_filename_component(name ${preset} NAME_WE)
  file(READ ${preset} bytes HEX)
  string(REGEX REPLACE "(..)" "0x\\1," bytes "${bytes}")
  string(APPEND arrays "static const unsigned char preset_${number}[] = {${bytes}0};\n")
  string(APPEND rows "    {\"${name}\", (const char *)preset_${number}},\n")
  math(EXPR number "${number} + 1")
endforeach()
file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/generated/preset_table.c @ONLY CONTENT
"#include \"train/presets.h\"

@arrays@
const struct em_preset em_presets[] = {
@rows@    {0},
};
")
target_sources(room_train PRIVATE ${CMAKE_BINARY_DIR}/generated/preset_table.c)
