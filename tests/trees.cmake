# Tests that run what the other build trees made (./dev test builds them), so that one ctest run has one summary.
# ThreadSanitizer and libFuzzer want fixed addresses: they do not know the layouts of newer kernels.
set(no_aslr setarch --addr-no-randomize)

set(sanitizer_env "ASAN_OPTIONS=abort_on_error=1:detect_leaks=1:strict_string_checks=1" "UBSAN_OPTIONS=print_stacktrace=1"
  "TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1")

foreach(folder base authz certs proxy control injector cli)
  file(GLOB sources CONFIGURE_DEPENDS unit/${folder}/*_test.cpp)
  if(NOT sources)
    continue()
  endif()
  add_test(NAME asan/unit/${folder} COMMAND ${no_aslr} ${POSTERN_TREES}/asan/tests/unit_${folder} --gtest_brief=1)
  set_tests_properties(asan/unit/${folder} PROPERTIES TIMEOUT 600 ENVIRONMENT "${sanitizer_env}")
  if(folder MATCHES "^(base|proxy)$")
    add_test(NAME tsan/unit/${folder} COMMAND ${no_aslr} ${POSTERN_TREES}/tsan/tests/unit_${folder} --gtest_brief=1)
    set_tests_properties(tsan/unit/${folder} PROPERTIES TIMEOUT 600 ENVIRONMENT "${sanitizer_env}")
  endif()
endforeach()

file(GLOB fuzzers CONFIGURE_DEPENDS fuzz/*_fuzz.cpp)
math(EXPR fuzz_timeout "${POSTERN_FUZZ_SECONDS} + 120")
foreach(source ${fuzzers})
  get_filename_component(name ${source} NAME_WE)
  add_test(NAME fuzz/${name} COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/fuzz/run ${POSTERN_TREES}/fuzz ${name} ${POSTERN_FUZZ_SECONDS})
  set_tests_properties(fuzz/${name} PROPERTIES TIMEOUT ${fuzz_timeout})
endforeach()

find_program(CLANG_FORMAT_14 clang-format-14)
if(CLANG_FORMAT_14)
  add_test(NAME format COMMAND ${CMAKE_SOURCE_DIR}/dev format --check)
  set_tests_properties(format PROPERTIES TIMEOUT 120)
endif()
