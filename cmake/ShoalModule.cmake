# shoal_module(NAME SOURCES a.c … [DEPENDS module …] [LIBS target …] [TESTS x_test …])
#
# Declares the module in the current folder: a static library shoal_NAME of SOURCES, which uses the
# modules DEPENDS (public: their headers may appear in ours) and the outside libraries LIBS
# (private). Each TESTS entry x_test is a cmocka program from x_test.c, a ctest named NAME.x with
# the label "unit". Includes are written "module/header.h" from the one include root src/.
function(shoal_module NAME)
    cmake_parse_arguments(M "" "" "SOURCES;DEPENDS;LIBS;TESTS" ${ARGN})
    add_library(shoal_${NAME} STATIC ${M_SOURCES})
    target_include_directories(shoal_${NAME} PUBLIC ${CMAKE_SOURCE_DIR}/src)
    list(TRANSFORM M_DEPENDS PREPEND shoal_)
    target_link_libraries(shoal_${NAME} PUBLIC ${M_DEPENDS} PRIVATE ${M_LIBS} Threads::Threads)
    if(BUILD_TESTING)
        foreach(test IN LISTS M_TESTS)
            shoal_test(${test} MODULE ${NAME})
        endforeach()
    endif()
endfunction()

# shoal_test(x_test MODULE NAME [DEPENDS module …] [LABEL label] [TIMEOUT seconds])
# One cmocka test program, linked with its module (and DEPENDS).
function(shoal_test TEST)
    cmake_parse_arguments(T "" "MODULE;LABEL;TIMEOUT" "DEPENDS" ${ARGN})
    if(NOT CMAKE_CROSSCOMPILING) # a cross build has a stand-in for it: cmake/aarch64.cmake
        find_library(CMOCKA_LIBRARY cmocka REQUIRED)
    endif()
    set(source ${TEST}.c)
    get_filename_component(TEST ${TEST} NAME) # a test may lie in a folder of its module
    add_executable(${TEST} ${source})
    list(TRANSFORM T_DEPENDS PREPEND shoal_)
    target_link_libraries(${TEST} PRIVATE shoal_${T_MODULE} ${T_DEPENDS} ${CMOCKA_LIBRARY})
    target_compile_definitions(${TEST} PRIVATE
        SHOAL_SOURCE_DIR="${CMAKE_SOURCE_DIR}" SHOAL_SHARED_DIR="${CMAKE_SOURCE_DIR}/../shared")
    string(REGEX REPLACE "_test$" "" short ${TEST})
    add_test(NAME ${T_MODULE}.${short} COMMAND ${TEST})
    if(NOT T_LABEL)
        set(T_LABEL unit)
    endif()
    if(NOT T_TIMEOUT)
        set(T_TIMEOUT 300)
    endif()
    # Exit status 77 marks a test whose data (../shared) is absent: skipped, with its message.
    set_tests_properties(${T_MODULE}.${short} PROPERTIES
        LABELS ${T_LABEL} TIMEOUT ${T_TIMEOUT} SKIP_RETURN_CODE 77)
endfunction()

# shoal_fuzz(x_fuzz MODULE NAME CORPUS dir): one libFuzzer entry from x_fuzz.c. With SHOAL_FUZZ it
# is a fuzzer; without, the same file is linked with a small driver that replays the corpus, as a
# ctest with the label "fuzz", so that every build runs every known input.
function(shoal_fuzz FUZZ)
    cmake_parse_arguments(F "" "MODULE;CORPUS" "DEPENDS" ${ARGN})
    list(TRANSFORM F_DEPENDS PREPEND shoal_)
    if(SHOAL_FUZZ)
        add_executable(${FUZZ} ${FUZZ}.c)
        target_link_options(${FUZZ} PRIVATE -fsanitize=fuzzer)
        target_link_libraries(${FUZZ} PRIVATE shoal_${F_MODULE} ${F_DEPENDS})
    elseif(BUILD_TESTING)
        add_executable(${FUZZ} ${FUZZ}.c ${CMAKE_SOURCE_DIR}/tests/fuzz/replay.c)
        target_link_libraries(${FUZZ} PRIVATE shoal_${F_MODULE} ${F_DEPENDS})
        add_test(NAME fuzz.${FUZZ} COMMAND ${FUZZ} ${F_CORPUS})
        set_tests_properties(fuzz.${FUZZ} PROPERTIES LABELS fuzz TIMEOUT 120)
    endif()
endfunction()
