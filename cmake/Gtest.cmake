# GoogleTest from the system's package, or the same release fetched (GitHub, else Debian's mirror of its sources).
find_package(GTest QUIET)
if(NOT GTest_FOUND)
  message(STATUS "no GoogleTest on this machine: fetching release 1.12.1")
  include(FetchContent)
  FetchContent_Declare(googletest
    URL https://github.com/google/googletest/archive/refs/tags/release-1.12.1.tar.gz
        http://deb.debian.org/debian/pool/main/g/googletest/googletest_1.12.1.orig.tar.gz
    URL_HASH SHA256=81964fe578e9bd7c94dfdb09c8e4d6e6759e19967e397dbea48d1c10e45d0df2
    DOWNLOAD_EXTRACT_TIMESTAMP OFF)
  set(INSTALL_GTEST OFF CACHE BOOL "" FORCE)
  set(CMAKE_POLICY_VERSION_MINIMUM 3.5)
  FetchContent_MakeAvailable(googletest)
  if(NOT TARGET GTest::gtest_main)
    add_library(GTest::gtest ALIAS gtest)
    add_library(GTest::gtest_main ALIAS gtest_main)
  endif()
endif()
