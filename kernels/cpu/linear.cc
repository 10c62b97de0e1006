// SPDX-License-Identifier: Apache-2.0
// Which kernel a linear runs, how its work is shared, and what lies in its workspace.
#include "kernels/cpu/linear.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu/linear_kernels.h"

namespace assay::cpu {

#if defined(__x86_64__)
namespace linear_avx2 {
extern const LinearKernels kKernels;
}
namespace linear_avx512 {
extern const LinearKernels kKernels;
}
namespace linear_avx512_vnni {
extern const LinearKernels kKernels;
}
namespace linear_avx512_bf16 {
extern const LinearKernels kKernels;
}
#endif
namespace linear_generic {
extern const LinearKernels kKernels;
}

const LinearKernels& LinearKernelsFor([[maybe_unused]] const Isa& isa) {
#if defined(__x86_64__)
  if (isa.avx512_bf16) return linear_avx512_bf16::kKernels;
  if (isa.avx512_vnni) return linear_avx512_vnni::kKernels;
  if (isa.avx512) return linear_avx512::kKernels;
  if (isa.avx2) return linear_avx2::kKernels;
#endif
  return linear_generic::kKernels;
}

LinearKernels::Gemm SmallBf16Product(const Isa& isa, const AmxKernels& amx) {
  return isa.amx_bf16 ? amx.small : LinearKernelsFor(isa).bf16_dot;
}

namespace {

constexpr int64_t kChunkCols = 256;  // columns of a block weight that are dequantised to f32 at a time
constexpr int64_t kAlign = 64;

enum class Path {
  kPlain,     // x as it is
  kBf16Dot,   // x in bf16, AVX-512 BF16
  kBf16Amx,   // x in bf16
  kBlockRow,  // x in i8, one row: weights unpacked in registers
  kBlockI8,   // x in i8, weights unpacked to bytes, a chunk at a time
  kBlockF32,  // weights dequantised to f32, a chunk at a time
  kBlockAmx,  // weights dequantised to bf16, a block at a time; x in bf16
};

bool IsI8(Path path) {
  return path == Path::kBlockRow || path == Path::kBlockI8;
}

struct Plan {
  Path path = Path::kPlain;
  // Each member converts x for itself when there is little of it: cheaper than waiting for one another.
  bool shared_x = false;
  int64_t x_rows = 0, x_cols = 0;        // of the converted x
  int64_t x_bytes = 0, scale_bytes = 0;  // of one copy: its values and their block scales
  int64_t member_bytes = 0;              // scratch of each member
  bool Amx() const { return path == Path::kBf16Amx || path == Path::kBlockAmx; }
  int64_t XBytes() const { return x_bytes + scale_bytes; }
};

int64_t RoundUp(int64_t n, int64_t unit) {
  return (n + unit - 1) / unit * unit;
}

constexpr int64_t kPrivateX = 8192;  // elements of x, at most, that each member converts for itself
constexpr int64_t kAmxRows = 32;     // rows of x from which AMX serves bf16: whole tiles ...
// ... and block types. By arithmetic it wins from 10 to 35 rows on: to dequantise a weight takes 0.06 to 0.08 ns
// (Zen 4; twice that where two threads share a core), to multiply it with a row 0.002 ns, and on the VNNI path 0.007 to
// 0.01.
constexpr int64_t kAmxBlockRows = 64;

Path PathOf(const Isa& isa, const WeightSpec& spec, int64_t m) {
  const bool strict = spec.compute == DType::kF32;
  switch (spec.dtype) {
    case DType::kF32:
    case DType::kF16:
      return Path::kPlain;
    case DType::kBF16:
      if (strict) return Path::kPlain;
      if (isa.amx_bf16 && m >= kAmxRows) return Path::kBf16Amx;
      return LinearKernelsFor(isa).bf16_dot != nullptr ? Path::kBf16Dot : Path::kPlain;
    default:
      if (strict) return Path::kBlockF32;
      if (m <= 1) return Path::kBlockRow;
      return isa.amx_bf16 && m >= kAmxBlockRows ? Path::kBlockAmx : Path::kBlockI8;
  }
}

Plan MakePlan(const Isa& isa, const WeightSpec& spec, int64_t m) {
  Plan p;
  p.path = PathOf(isa, spec, m);
  if (p.Amx() || p.path == Path::kBf16Dot) {
    p.x_cols = RoundUp(spec.cols, p.path == Path::kBlockAmx ? kBlockCols : 32);
    p.x_rows = p.Amx() ? RoundUp(m, kAmxStripRows) : m;
    p.x_bytes = RoundUp(p.x_rows * p.x_cols * 2, kAlign);
  } else if (p.path == Path::kBlockRow || p.path == Path::kBlockI8) {
    p.x_cols = RoundUp(spec.cols, kBlockCols);
    p.x_rows = m;
    p.x_bytes = RoundUp(p.x_rows * p.x_cols, kAlign);
    p.scale_bytes = RoundUp(p.x_rows * (p.x_cols / 32) * sizeof(BlockScale), kAlign);
  }
  if (p.Amx()) p.member_bytes = kAmxScratchBytes;
  if (p.path == Path::kBlockF32) p.member_bytes = kChunkCols * kPanelRows * sizeof(float);
  if (p.path == Path::kBlockI8) p.member_bytes = kExpandedScratch;
  p.shared_x = m * spec.cols > kPrivateX;
  return p;
}

int64_t PlanBytes(const Plan& p, int threads) {
  return (p.shared_x ? 1 : threads) * p.XBytes() + threads * p.member_bytes;
}

// A member's rectangle of y: one of `across` that share the rows [m0, m1).
struct Part {
  int64_t m0 = 0, m1 = 0, n0 = 0, n1 = 0;
  int across = 1, index = 0;
};

// Cuts y into rectangles as equal as the grains allow. Cuts along M are preferred where that leaves each member enough
// rows to be bound by arithmetic: then x and y stay in its own cache (with 2 threads and M = 512, converting x for
// one another cost 10 to 50 % of the whole), while the weights come to all from the shared one.
// AMX is so fast that a member with fewer rows than a block has would wait for its weights (at 1 TFLOP/s and 256 rows
// it reads 4 GB/s of them, at 32 rows it would be 32 of the 10 that one core gets), or dequantise them once per member
// where once is enough: fewer rows are cut along N, and each member reads its share of the weights once.
Part PartOf(const Plan& plan, int64_t m, int64_t n, int64_t n_grain, const Team& team) {
  const int64_t m_grain = plan.Amx() ? kAmxStripRows : 1;
  const int64_t least_rows = plan.path == Path::kBf16Amx    ? kAmxMostRows
                             : plan.path == Path::kBlockAmx ? kAmxMostRowsOfBlocks
                                                            : 32;
  const auto area = [&](int64_t cuts) {
    const int64_t across = team.size / cuts;
    return RoundUp((m + cuts - 1) / cuts, m_grain) * RoundUp((n + across - 1) / across, n_grain);
  };
  int cuts = 1;
  for (int c = 2; c <= team.size && m / c >= least_rows; ++c) {
    if (area(c) <= area(cuts)) cuts = c;
  }
  Part part;
  part.across = team.size / cuts;
  if (team.rank >= cuts * part.across) return part;
  part.index = team.rank % part.across;
  const Share rows = Split(m, m_grain, {team.rank / part.across, cuts, nullptr});
  const Share cols = Split(n, n_grain, {part.index, part.across, nullptr});
  part.m0 = rows.begin, part.m1 = rows.end, part.n0 = cols.begin, part.n1 = cols.end;
  return part;
}

// The converted x. The rows of this member's part are ready, with the help of those who share them.
struct ConvertedX {
  const std::byte* values;
  const BlockScale* scales;
};

ConvertedX ConvertX(LinearKernels::Convert convert, const WeightSpec& spec, const Plan& plan, const View& x,
                    const Part& part, std::byte* workspace, const Team& team) {
  std::byte* const at = workspace + (plan.shared_x ? 0 : team.rank * plan.XBytes());
  ConvertArgs a;
  a.x = x.as<const float>();
  a.ldx = x.stride[0];
  a.rows = x.shape[0];
  a.k = spec.cols;
  a.pieces_per_row = plan.x_cols / 32;
  a.padded_rows = plan.x_rows;
  a.out = at;
  a.scales = reinterpret_cast<BlockScale*>(at + plan.x_bytes);
  a.offset = OffsetOf(spec.dtype);
  a.halves = spec.dtype == DType::kQ6_K;
  const int64_t begin = part.m0 * a.pieces_per_row;
  const int64_t end = (part.m1 == a.rows ? plan.x_rows : part.m1) * a.pieces_per_row;  // with the padding rows
  const bool together = plan.shared_x && part.across > 1;
  const Share share = together ? Split(end - begin, 1, {part.index, part.across, nullptr}) : Share{0, end - begin};
  if (part.m0 < part.m1) convert(a, begin + share.begin, begin + share.end);
  if (together) team.Barrier();
  return {at, a.scales};
}

const BlockKernels& BlockKernelsFor(const LinearKernels& kernels, DType dtype) {
  return *std::find_if(kernels.blocks, kernels.blocks + kernels.block_count,
                       [&](const BlockKernels& b) { return b.dtype == dtype; });
}

LinearKernels::Gemm GemmFor(const LinearKernels& kernels, Path path, DType dtype) {
  if (path == Path::kBf16Dot) return kernels.bf16_dot;
  if (path == Path::kBlockRow) return BlockKernelsFor(kernels, dtype).one;
  if (path == Path::kBlockI8) return BlockKernelsFor(kernels, dtype).many;
  return dtype == DType::kF32 ? kernels.f32 : dtype == DType::kF16 ? kernels.f16 : kernels.bf16;
}

int PanelsAt(const WeightSpec& spec, int64_t n) {
  return static_cast<int>(std::min<int64_t>(RoundUp(spec.rows - n, kBlockRows), kPanelRows) / kBlockRows);
}

// Block weights in f32: 64 rows x kChunkCols columns at a time pass through `chunk`.
void BlockF32(const LinearKernels& kernels, const WeightSpec& spec, const GemmArgs& a, float* chunk) {
  const auto dequantize = BlockKernelsFor(kernels, spec.dtype).dequantize;
  for (int64_t n = a.n0; n < a.n1; n += kPanelRows) {
    for (int64_t k = 0; k < spec.cols; k += kChunkCols) {
      const int64_t count = std::min(kChunkCols, spec.cols - k);
      dequantize(a.w + n / kBlockRows * a.panel_bytes, a.panel_bytes, PanelsAt(spec, n), k, RoundUp(count, kBlockCols),
                 chunk);
      GemmArgs part = a;
      part.x = static_cast<const float*>(a.x) + k;
      part.w = reinterpret_cast<const std::byte*>(chunk);
      part.bias = a.bias == nullptr ? nullptr : a.bias + n;
      part.y = a.y + n;
      part.n0 = 0;
      part.n1 = std::min<int64_t>(kPanelRows, a.n1 - n);
      part.k = count;
      part.accumulate = k > 0;
      kernels.f32(part);
    }
  }
}

void Amx(const LinearKernels& kernels, const AmxKernels& amx, const WeightSpec& spec, const Plan& plan,
         const GemmArgs& gemm, std::byte* scratch) {
  AmxArgs a{gemm};
  a.k = plan.x_cols;
  if (plan.path == Path::kBlockAmx) {
    a.dequantize = BlockKernelsFor(kernels, spec.dtype).dequantize;
    a.panel_to_bf16 = kernels.panel_to_bf16;
  }
  a.scratch = scratch;
  amx.gemm(a);
}

}  // namespace

size_t LinearWorkspaceFor(const Isa& isa, const WeightSpec& spec, int64_t m, int threads) {
  // The most that any number of rows up to m needs: m itself, or the last one before a change of plan.
  int64_t most = 0;
  for (const int64_t rows : {m, kAmxRows - 1, kAmxBlockRows - 1, kPrivateX / spec.cols}) {
    most = std::max(most, PlanBytes(MakePlan(isa, spec, std::min(rows, m)), threads));
  }
  return most;
}

void LinearFor(const Isa& isa, const WeightSpec& spec, const View& x, const void* packed, const View& bias,
               const View& y, void* workspace, const Team& team, const AmxKernels& amx) {
  const int64_t m = x.shape[0];
  if (m == 0) return;
  const LinearKernels& kernels = LinearKernelsFor(isa);
  const Plan plan = MakePlan(isa, spec, m);
  std::byte* const ws = static_cast<std::byte*>(workspace);

  // Whole panels: half a panel is no forward stream, and took longer to read than a whole one.
  const int64_t n_grain = IsI8(plan.path) || plan.path == Path::kBlockAmx ? kBlockRows : kPanelRows;
  const Part part = PartOf(plan, m, spec.rows, n_grain, team);
  GemmArgs a;
  a.x = x.data;
  a.ldx = x.stride[0];
  if (plan.x_rows > 0) {
    const auto convert = plan.Amx() ? amx.convert : IsI8(plan.path) ? kernels.quantize : kernels.to_bf16;
    const ConvertedX converted = ConvertX(convert, spec, plan, x, part, ws, team);
    a.x = converted.values;
    a.ldx = plan.x_cols;
    a.xs = converted.scales;
    a.x_rows = plan.x_rows;
  }
  a.w = static_cast<const std::byte*>(packed);
  a.panel_bytes = PanelBytes(spec);
  a.bias = bias.as<const float>();
  a.y = y.as<float>();
  a.ldy = y.stride[0];
  a.m0 = part.m0, a.m1 = part.m1, a.n0 = part.n0, a.n1 = part.n1;
  a.k = spec.cols;
  if (a.m0 == a.m1 || a.n0 == a.n1) return;

  std::byte* const scratch = ws + (plan.shared_x ? 1 : team.size) * plan.XBytes() + team.rank * plan.member_bytes;
  if (plan.Amx()) {
    Amx(kernels, amx, spec, plan, a, scratch);
  } else if (plan.path == Path::kBlockF32) {
    BlockF32(kernels, spec, a, reinterpret_cast<float*>(scratch));
  } else {
    a.scratch = scratch;
    GemmFor(kernels, plan.path, spec.dtype)(a);
  }
}

size_t LinearWorkspace(const WeightSpec& spec, int64_t m, int threads) {
  return LinearWorkspaceFor(CurrentIsa(), spec, m, threads);
}

void Linear(const WeightSpec& spec, const View& x, const void* packed, const View& bias, const View& y, void* workspace,
            const Team& team) {
  LinearFor(CurrentIsa(), spec, x, packed, bias, y, workspace, team);
}

void PrefetchWeight(const WeightSpec& spec, int64_t m, const void* packed, int64_t bytes, const Team& team) {
  const int64_t panel_rows = LayoutOf(spec.dtype).cols > 0 ? kBlockRows : kPanelRows;
  const Part part = PartOf(MakePlan(CurrentIsa(), spec, m), m, spec.rows, panel_rows, team);
  const char* const first = static_cast<const char*>(packed) + part.n0 / panel_rows * PanelBytes(spec);
  const int64_t all = (part.n1 - part.n0 + panel_rows - 1) / panel_rows * PanelBytes(spec);
  for (int64_t at = 0; at < std::min(bytes, all); at += kAlign) __builtin_prefetch(first + at, 0, 2);
}

}  // namespace assay::cpu
