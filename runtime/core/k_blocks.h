// SPDX-License-Identifier: Apache-2.0
// GGUF's K types, one block of 256 elements at a time (layouts: backends/api/assay_backend.h). Pure functions, any
// thread.
// The quantisers are our own, for tests and synthetic weights: no file is ever written with them. They are simpler than
// ggml's, which search for the scales of the least error: here a sub-block's scale spans its values, rounded up to what
// the block's own scale can express. Any input gives a block; finite ones whose scales are normal numbers of
// f16 come back within one step of their sub-block.
#pragma once

#include <cstdint>

namespace assay {

inline constexpr int kKBlock = 256;

void QuantizeQ4K(const float* x, uint8_t* block);
void QuantizeQ5K(const float* x, uint8_t* block);
void QuantizeQ6K(const float* x, uint8_t* block);
void DequantizeQ4K(const uint8_t* block, float* x);
void DequantizeQ5K(const uint8_t* block, float* x);
void DequantizeQ6K(const uint8_t* block, float* x);

}  // namespace assay
