# SPDX-License-Identifier: Apache-2.0
# The house: a room is a library whose headers only those see who link to it.
#
# assay_room(NAME DIRS dir... USES target...)
#   builds every *.cc of the folders (not *_test.cc) into the library NAME. Headers are included by their path
#   from the repository's root ("runtime/core/error.h"); that path exists only on the include path of targets that
#   link to the room, through a tree of links in the build folder. So an include against the flow does not compile.
# assay_room_test(NAME ROOM dir... )
#   builds the *_test.cc files that lie beside the code of a room into one GoogleTest program.
# assay_cold(TARGET FILE...)
#   says that these sources of the target run rarely: optimising them would be much of a build, for nothing.

find_package(Threads REQUIRED)

add_library(assay_flags INTERFACE)
target_compile_options(
  assay_flags INTERFACE "$<$<COMPILE_LANGUAGE:C,CXX>:-Wall;-Wextra;-Werror>"
                        "$<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings;-Xcompiler=-Wall,-Wextra,-Werror>")
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # GCC 12 sees overlapping copies in std::string's operator+ where there are none (GCC bug 105329).
  target_compile_options(assay_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict>)
endif()
if(ASSAY_SANITIZE)
  target_compile_options(assay_flags INTERFACE -fsanitize=${ASSAY_SANITIZE} -fno-sanitize-recover=all
                                               -fno-omit-frame-pointer)
  target_link_options(assay_flags INTERFACE -fsanitize=${ASSAY_SANITIZE})
endif()
# Sanitized code costs the optimiser even more; a debug build has its own level.
set(cold_options $<$<CONFIG:Release>:-O1> $<$<CONFIG:RelWithDebInfo>:-O0>)
if(ASSAY_STATIC)
  include(cmake/portable.cmake)
endif()

function(assay_cold target)
  set_property(SOURCE ${ARGN} TARGET_DIRECTORY ${target} APPEND PROPERTY COMPILE_OPTIONS ${cold_options})
endfunction()

function(assay_expose target)  # folders, relative to the root, whose headers `target` shows to its users
  set(root ${CMAKE_BINARY_DIR}/rooms/${target})
  foreach(dir ${ARGN})
    if(EXISTS ${root}/${dir})
      continue()  # made before, or inside a folder that is shown already
    endif()
    get_filename_component(parent ${root}/${dir} DIRECTORY)
    file(MAKE_DIRECTORY ${parent})
    file(CREATE_LINK ${PROJECT_SOURCE_DIR}/${dir} ${root}/${dir} SYMBOLIC)
  endforeach()
  get_target_property(type ${target} TYPE)
  if(type STREQUAL "INTERFACE_LIBRARY")
    target_include_directories(${target} INTERFACE ${root})
  else()
    target_include_directories(${target} PUBLIC ${root})
  endif()
endfunction()

function(assay_room name)
  cmake_parse_arguments(ROOM "" "" "DIRS;USES" ${ARGN})
  set(sources)
  foreach(dir ${ROOM_DIRS})
    file(GLOB found CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${dir}/*.cc)
    list(FILTER found EXCLUDE REGEX "_test\\.cc$")
    list(APPEND sources ${found})
  endforeach()
  add_library(${name} STATIC ${sources})
  assay_expose(${name} ${ROOM_DIRS})
  target_link_libraries(${name} PUBLIC ${ROOM_USES} Threads::Threads PRIVATE assay_flags)
endfunction()

function(assay_room_test name)
  cmake_parse_arguments(TEST "" "" "DIRS;USES" ${ARGN})
  if(NOT ASSAY_TESTS)
    return()
  endif()
  set(sources)
  foreach(dir ${TEST_DIRS})
    file(GLOB found CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${dir}/*_test.cc)
    list(APPEND sources ${found})
  endforeach()
  if(NOT sources)
    return()
  endif()
  find_package(GTest REQUIRED)
  include(GoogleTest)
  add_executable(${name} ${sources})
  target_link_libraries(${name} PRIVATE ${TEST_USES} GTest::gtest_main assay_flags)
  target_compile_definitions(${name} PRIVATE ASSAY_SOURCE_DIR="${PROJECT_SOURCE_DIR}"
                                             ASSAY_BINARY_DIR="${CMAKE_BINARY_DIR}")
  target_compile_options(${name} PRIVATE $<$<CONFIG:Release>:-O1>)
  gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST PROPERTIES TIMEOUT 300)
endfunction()
