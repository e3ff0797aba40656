# Compiler flags that every C file of the project gets. No -march: the tree is built for the
# baseline of its architecture, kernels get their own flags where they stand (src/backend/cpu).
set(CMAKE_C_STANDARD 17)
set(CMAKE_C_EXTENSIONS ON) # POSIX and GNU declarations; the language stays C17
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)

add_compile_definitions(_GNU_SOURCE SHOAL_VERSION="${SHOAL_VERSION}")
add_compile_options(
    -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wconversion
    -Wno-sign-conversion -Wno-missing-field-initializers # rows of tables leave the rest zero
    -Wvla -fno-omit-frame-pointer
    # One rounding per written operation: the same bits from every compiler (DESIGN, "The bits").
    -ffp-contract=off)
if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
    add_compile_options(-Wno-format-truncation) # messages are cut on purpose (base/error.h)
endif()
if(SHOAL_WERROR)
    add_compile_options(-Werror)
endif()
if(SHOAL_SANITIZE)
    add_compile_options(-fsanitize=${SHOAL_SANITIZE} -fno-sanitize-recover=all)
    add_link_options(-fsanitize=${SHOAL_SANITIZE})
endif()
if(SHOAL_FUZZ)
    add_compile_options(-fsanitize=fuzzer-no-link)
endif()
