# Warnings for our own code; headers of others are SYSTEM.
add_compile_options(-Wall -Wextra -Wno-unused-parameter -fno-math-errno -fno-plt)
if(OMNIMA_COVERAGE)
  add_compile_options(--coverage -O1 -fprofile-update=atomic)
  add_link_options(--coverage)
endif()
if(OMNIMA_SANITIZE)
  add_compile_options(-fsanitize=${OMNIMA_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer
                      -O1 -g1 -D_GLIBCXX_ASSERTIONS)
  add_link_options(-fsanitize=${OMNIMA_SANITIZE})
endif()
if(OMNIMA_FUZZ)
  # A number that does not fit the integer it is made to is undefined, too, but not in that group.
  set(fuzz_sanitizers address,undefined,float-cast-overflow)
  add_compile_options(-fsanitize=fuzzer-no-link,${fuzz_sanitizers} -fno-sanitize-recover=all
                      -fno-omit-frame-pointer -O1 -g1 -D_GLIBCXX_ASSERTIONS)
  add_link_options(-fsanitize=${fuzz_sanitizers})
endif()
