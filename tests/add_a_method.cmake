# Builds the example of docs/add-a-method.md as a reader would: its two files, and a registry with one more entry.
set(guide ${PROJECT_SOURCE_DIR}/docs/add-a-method.md)
set(registry ${PROJECT_SOURCE_DIR}/src/interventions/registry.c)
set(made ${CMAKE_CURRENT_BINARY_DIR}/add_a_method)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${guide} ${registry})
file(MAKE_DIRECTORY ${made})
foreach(name release.c test_release.c)
  execute_process(
    COMMAND awk -v "wanted=<!-- file: ${name} -->"
            "$0 == wanted {found = 1; next} found && /^```/ {if (open) exit; open = 1; next} open {print}" ${guide}
    OUTPUT_FILE ${made}/${name} COMMAND_ERROR_IS_FATAL ANY)
endforeach()
file(READ ${registry} text)
string(REPLACE "extern const struct method " "extern const struct method method_release, " text "${text}")
string(REPLACE "= {" "= {\n    &method_release," text "${text}")
file(WRITE ${made}/registry.c.new "${text}")
file(COPY_FILE ${made}/registry.c.new ${made}/registry.c ONLY_IF_DIFFERENT)

add_executable(test_release ${made}/test_release.c ${made}/release.c ${made}/registry.c)
target_compile_definitions(test_release PRIVATE PROJECT_ROOT="${PROJECT_SOURCE_DIR}")
target_link_libraries(test_release PRIVATE candid_static PkgConfig::CMOCKA)
add_test(NAME docs_add_a_method COMMAND test_release)
