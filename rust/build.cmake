# Builds the Rust library: cmake -DCARGO=… -DTARGET_DIR=… -DOUT=librust_text.a -P build.cmake
#
# All build trees share one cargo target folder, so that only the first of them compiles; cargo
# locks it. First without the network (crates fetched before, or vendored), then with it. The
# library is copied into the tree that asked, under a new time, so that ninja sees it is done.
set(cargo_build ${CMAKE_COMMAND} -E env CARGO_TARGET_DIR=${TARGET_DIR}
    ${CARGO} build --release --locked --jobs 2)
execute_process(COMMAND ${cargo_build} --offline WORKING_DIRECTORY ${CMAKE_CURRENT_LIST_DIR}
                RESULT_VARIABLE failed OUTPUT_QUIET ERROR_QUIET)
if(failed)
    execute_process(COMMAND ${cargo_build} WORKING_DIRECTORY ${CMAKE_CURRENT_LIST_DIR}
                    RESULT_VARIABLE failed)
endif()
if(failed)
    message(FATAL_ERROR "cargo build failed in ${CMAKE_CURRENT_LIST_DIR}")
endif()
file(COPY_FILE ${TARGET_DIR}/release/libshoal_text.a ${OUT})
file(TOUCH ${OUT})
