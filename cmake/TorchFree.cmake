# OMNIMA_TORCH_FREE builds only what needs no torch, with its tests: for the sanitizers (torch is not
# instrumented) and for other CPUs. Folders (ending in /) and sources below cpp/omnima, and with _test below
# tests/cpp; a name that only begins alike (optim/schedule_free) is another source.
if(OMNIMA_SANITIZE OR OMNIMA_FUZZ)
  set(OMNIMA_TORCH_FREE ON)
endif()
if(OMNIMA_FUZZ)
  # What the fuzzers run.
  set(OMNIMA_TORCH_FREE_PATHS core/ io/durable_file io/gguf io/json io/mapping io/safetensors_header
      quant/formats/ quant/grid quant/registry)
elseif(OMNIMA_SANITIZE STREQUAL "thread")
  # What runs on threads of its own.
  set(OMNIMA_TORCH_FREE_PATHS core/ text/ data/ generate/team)
else()
  set(OMNIMA_TORCH_FREE_PATHS core/ kernels/cpu/ text/ data/ generate/options generate/sampler
      generate/team io/durable_file io/fuzz_entries io/gguf io/gguf_writer io/json io/json_mutations
      io/mapping io/safetensors_header optim/schedule quant/formats/ quant/grid quant/registry)
endif()
list(TRANSFORM OMNIMA_TORCH_FREE_PATHS APPEND "(_test)?[.]" REGEX "[^/]$")
list(JOIN OMNIMA_TORCH_FREE_PATHS "|" OMNIMA_TORCH_FREE_PATTERN)

# keep_torch_free(variable root): of the files below root that the variable lists, those above.
function(keep_torch_free variable root)
  if(OMNIMA_TORCH_FREE)
    list(FILTER ${variable} INCLUDE REGEX "^${root}/(${OMNIMA_TORCH_FREE_PATTERN})")
    set(${variable} ${${variable}} PARENT_SCOPE)
  endif()
endfunction()
