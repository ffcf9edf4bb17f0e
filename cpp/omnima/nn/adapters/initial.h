// The values that a low-rank adapter begins with.
#pragma once

#include <string>

#include "omnima/nn/adapters/adapter.h"

namespace omnima::nn {

// Whether the initial product is made of the base's weights, which are lessened by it.
bool starts_from_base(const std::string& init);

// Fills A [rank, in] and B [out, rank] of a site; `number` tells the sites of an adapter apart.
// default: A uniform in 1/sqrt(in), B zero; gaussian: A normal with 1/rank, B zero;
// pissa: the largest singular vectors of the weights (Meng et al. 2024, arXiv 2404.02948);
// olora: the first columns of their QR decomposition (Büyükakyüz 2024, arXiv 2406.01775).
void draw_low_rank(const Arena& base, const Site& site, const AdapterOptions& options,
                   std::size_t number, const at::Tensor& down, const at::Tensor& up);

}  // namespace omnima::nn
