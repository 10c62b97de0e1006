# SPDX-License-Identifier: Apache-2.0
# For a program that runs where none of our packages are: what there is an archive of is linked from it, what there is
# not is compiled in from its headers; `./dev gpu` checks that nothing shared is left but libc. Included by rooms.cmake.
set(CMAKE_FIND_LIBRARY_SUFFIXES .a .so)
target_link_options(assay_flags INTERFACE -static-libstdc++ -static-libgcc -Wl,--as-needed)
# Debian has spdlog, fmt and toml++ as shared libraries only. Linked as needed, they are not: their headers hold it all.
find_package(spdlog REQUIRED)
set_target_properties(spdlog::spdlog PROPERTIES INTERFACE_COMPILE_DEFINITIONS "SPDLOG_FMT_EXTERNAL;FMT_HEADER_ONLY=1")
find_package(tomlplusplus REQUIRED)
set_target_properties(tomlplusplus::tomlplusplus PROPERTIES INTERFACE_COMPILE_OPTIONS "")
