# What `cmake --install` puts in place: the library with its CMake package and pkg-config file, the headers, the program.
include(CMakePackageConfigHelpers)

install(TARGETS candid EXPORT candidTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS candid_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(FILES include/candid/candid.h include/candid/plugin.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/candid)
install(FILES models/demo/candid-demo.gguf models/demo/README.md DESTINATION ${CMAKE_INSTALL_DATADIR}/candid/models/demo)
install(DIRECTORY configs/ DESTINATION ${CMAKE_INSTALL_DATADIR}/candid/configs FILES_MATCHING PATTERN "*.json")
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(EXPORT candidTargets NAMESPACE candid:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/candid)

configure_package_config_file(cmake/candidConfig.cmake.in ${PROJECT_BINARY_DIR}/candidConfig.cmake
                              INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/candid)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/candidConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/candidConfig.cmake ${PROJECT_BINARY_DIR}/candidConfigVersion.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/candid)

# Relative to the file itself, so that `cmake --install --prefix` and moved trees work.
file(RELATIVE_PATH PC_PREFIX_UP /${CMAKE_INSTALL_LIBDIR} /)
configure_file(cmake/candid.pc.in ${PROJECT_BINARY_DIR}/candid.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/candid.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
