# The instruction-set levels of kernels/cpu: a file <kernel>_<level>.cpp is compiled with the level's flags.
# The level that runs is chosen at run time (kernels/cpu/cpu_features.h), never by the build machine.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(OMNIMA_CPU_LEVELS generic avx2 avx512 avx512vnni avx512bf16 amx)
  set(OMNIMA_FLAGS_generic "")
  set(OMNIMA_FLAGS_avx2 -mavx2 -mfma -mf16c)
  set(OMNIMA_FLAGS_avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mf16c
      -mprefer-vector-width=512)
  set(OMNIMA_FLAGS_avx512vnni ${OMNIMA_FLAGS_avx512} -mavx512vnni)
  set(OMNIMA_FLAGS_avx512bf16 ${OMNIMA_FLAGS_avx512vnni} -mavx512bf16)
  set(OMNIMA_FLAGS_amx ${OMNIMA_FLAGS_avx512bf16} -mamx-tile -mamx-int8 -mamx-bf16)
else()
  set(OMNIMA_CPU_LEVELS generic)
  set(OMNIMA_FLAGS_generic "")
endif()
