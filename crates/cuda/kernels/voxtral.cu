// All device code of the project, one translation unit: `cargo xtask kernels` compiles it for every architecture.
#include "common.cuh"
#include "epilogue.cuh"
#include "encoding.cuh"
#include "product.cuh"
#include "product_stream.cuh"
#include "product_tile.cuh"
#include "attention.cuh"
#include "rows.cuh"
