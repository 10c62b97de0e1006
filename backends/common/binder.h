// SPDX-License-Identifier: Apache-2.0
// Checks the tensors of one call and turns them into views. Every mistake is a Failure that names operation and tensor.
#pragma once

#include "backends/common/call.h"
#include "backends/common/failure.h"

namespace assay::backend {

// Checks the tensors of one operation and turns them into views.
class Binder {
 public:
  Binder(const char* op, const Rules& rules, const assay_args& args, bool resolve)
      : op_(op), rules_(rules), args_(args), resolve_(resolve) {}

  // Counts as the operation's list gives them; optional tensors at the end may be left out.
  void Count(uint32_t in_least, uint32_t in_most, uint32_t out_least, uint32_t out_most) const {
    if (args_.n_in < in_least || args_.n_in > in_most || args_.n_out < out_least || args_.n_out > out_most) {
      Fail(ASSAY_ERR_INVALID, "%s: %u inputs and %u outputs given, %u to %u and %u to %u expected", op_, args_.n_in,
           args_.n_out, in_least, in_most, out_least, out_most);
    }
    if ((args_.n_in > 0 && args_.in == nullptr) || (args_.n_out > 0 && args_.out == nullptr)) {
      Fail(ASSAY_ERR_INVALID, "%s: the list of tensors is NULL", op_);
    }
  }

  View In(uint32_t i, const char* name, int ndim, std::initializer_list<DType> dtypes) const {
    return Read(args_.in[i], name, ndim, dtypes);
  }
  View OptIn(uint32_t i, const char* name, int ndim, std::initializer_list<DType> dtypes) const {
    return i < args_.n_in && args_.in[i] != nullptr ? In(i, name, ndim, dtypes) : View{};
  }
  View Out(uint32_t i, const char* name, int ndim, std::initializer_list<DType> dtypes) const {
    return Read(args_.out[i], name, ndim, dtypes);
  }
  View OptOut(uint32_t i, const char* name, int ndim, std::initializer_list<DType> dtypes) const {
    return i < args_.n_out && args_.out[i] != nullptr ? Out(i, name, ndim, dtypes) : View{};
  }

  // Activations: the device's dtypes, the same one throughout a call.
  View ActIn(uint32_t i, const char* name, int ndim) { return SameAct(In(i, name, ndim, rules_.act), name); }
  View OptActIn(uint32_t i, const char* name, int ndim) {
    return i < args_.n_in && args_.in[i] != nullptr ? ActIn(i, name, ndim) : View{};
  }
  View ActOut(uint32_t i, const char* name, int ndim) { return SameAct(Out(i, name, ndim, rules_.act), name); }
  View OptActOut(uint32_t i, const char* name, int ndim) {
    return i < args_.n_out && args_.out[i] != nullptr ? ActOut(i, name, ndim) : View{};
  }

  void Same(int64_t a, int64_t b, const char* what) const {
    if (a != b) {
      Fail(ASSAY_ERR_INVALID, "%s: %s differ (%lld and %lld)", op_, what, static_cast<long long>(a),
           static_cast<long long>(b));
    }
  }
  void SameShape(const View& a, const View& b, const char* what) const {
    Same(a.ndim, b.ndim, what);
    for (int d = 0; d < a.ndim; ++d) Same(a.shape[d], b.shape[d], what);
  }
  void Check(bool ok, assay_status status, const char* why) const {
    if (!ok) Fail(status, "%s: %s", op_, why);
  }

  void Contiguous(const View& v, const char* name) const {
    if (v.shape[0] > 1 && v.stride[0] != v.shape[1]) Fail(ASSAY_ERR_INVALID, "%s: %s is not contiguous", op_, name);
  }

  void CheckHeadDim(int64_t dim, const char* what) const {
    if (dim <= rules_.max_head_dim) return;
    Fail(ASSAY_ERR_UNSUPPORTED, "%s: %s %lld exceeds %lld", op_, what, static_cast<long long>(dim),
         static_cast<long long>(rules_.max_head_dim));
  }

  // The packed weight in args.in[i]. any_compute: it may have been packed for another `compute`.
  View Weight(uint32_t i, const char* name, WeightSpec* spec, bool any_compute) const {
    View w = Read(args_.in[i], name, 2, rules_.weights, /*packed=*/true);
    *spec = {w.dtype, spec->compute, w.shape[0], w.shape[1]};
    if (rules_.weight_unsupported != nullptr) {
      if (const char* why = rules_.weight_unsupported(*spec)) Fail(ASSAY_ERR_UNSUPPORTED, "%s: %s", op_, why);
    }
    Check(w.shape[1] % StorageOf(w.dtype).elements == 0, ASSAY_ERR_INVALID, "a weight's row is not whole blocks");
    if (!resolve_) return w;
    const assay_tensor& t = *args_.in[i];
    const Memory& memory = rules_.memory(t.buffer);
    const auto found = memory.weights.find(t.offset);
    if (found == memory.weights.end() || found->second.dtype != spec->dtype || found->second.rows != spec->rows ||
        found->second.cols != spec->cols ||
        (!any_compute && !rules_.any_compute && found->second.compute != spec->compute)) {
      Fail(ASSAY_ERR_INVALID, "%s: %s is not what weight_pack put at offset %llu (dtype, rows, cols and compute)", op_,
           name, static_cast<unsigned long long>(t.offset));
    }
    *spec = found->second;
    w.stride[0] = w.shape[1];
    w.stride[1] = 1;
    return w;
  }

 private:
  View SameAct(const View& v, const char* name) {
    if (act_ == DType::kNone) act_ = v.dtype;
    if (v.dtype != act_) {
      Fail(ASSAY_ERR_UNSUPPORTED, "%s: %s is %s, the other activations are %s", op_, name, NameOf(v.dtype),
           NameOf(act_));
    }
    return v;
  }

  View Read(const assay_tensor* tensor, const char* name, int ndim, std::initializer_list<DType> dtypes,
            bool packed = false) const {
    if (tensor == nullptr) Fail(ASSAY_ERR_INVALID, "%s: %s is missing", op_, name);
    if (!ASSAY_HAS_FIELD(tensor, assay_tensor, stride)) Fail(ASSAY_ERR_INVALID, "%s: %s is cut short", op_, name);
    View v;
    v.dtype = static_cast<DType>(tensor->dtype);
    v.ndim = tensor->ndim;
    CheckDType(v.dtype, name, dtypes, packed);
    if (v.ndim != ndim) Fail(ASSAY_ERR_INVALID, "%s: %s has %d dimensions, not %d", op_, name, v.ndim, ndim);
    int64_t last = 0;  // index of the last element
    bool empty = false;
    bool overflow = false;
    for (int d = 0; d < ndim; ++d) {
      v.shape[d] = tensor->shape[d];
      v.stride[d] = tensor->stride[d];
      if (v.shape[d] < 0) Fail(ASSAY_ERR_INVALID, "%s: %s has a negative size", op_, name);
      if (v.shape[d] == 0) empty = true;
      if (packed || v.shape[d] == 0) continue;
      int64_t reach = 0;
      overflow |= v.stride[d] < 0 || __builtin_mul_overflow(v.shape[d] - 1, v.stride[d], &reach) ||
                  __builtin_add_overflow(last, reach, &last);
    }
    if (!packed && v.shape[ndim - 1] > 1 && v.stride[ndim - 1] != 1) {
      Fail(ASSAY_ERR_INVALID, "%s: the last dimension of %s is not contiguous", op_, name);
    }
    if (resolve_) v.data = Resolve(*tensor, name, v.dtype, last, empty || packed, overflow);
    return v;
  }

  void CheckDType(DType dtype, const char* name, std::initializer_list<DType> dtypes, bool packed) const {
    for (const DType allowed : dtypes) {
      if (dtype == allowed) return;
    }
    if (packed) Fail(ASSAY_ERR_UNSUPPORTED, "%s: no kernel for weight dtype %s", op_, NameOf(dtype));
    Fail(ASSAY_ERR_UNSUPPORTED, "%s: no kernel for %s of dtype %s", op_, name, NameOf(dtype));
  }

  // bounds_known: nothing is accessed, or weight_pack has checked it.
  void* Resolve(const assay_tensor& t, const char* name, DType dtype, int64_t last, bool bounds_known,
                bool overflow) const {
    if (t.buffer == nullptr) Fail(ASSAY_ERR_INVALID, "%s: %s has no buffer", op_, name);
    const int64_t width = StorageOf(dtype).bytes;
    const Memory& memory = rules_.memory(t.buffer);
    const uint64_t bytes = memory.bytes;
    const bool blocks = StorageOf(dtype).elements > 1;  // a packed weight: weight_pack has checked its place
    if (!blocks && t.offset % width != 0) Fail(ASSAY_ERR_INVALID, "%s: the offset of %s is not aligned", op_, name);
    if (t.offset > bytes ||
        (!bounds_known && (overflow || static_cast<uint64_t>(last) >= (bytes - t.offset) / width))) {
      Fail(ASSAY_ERR_INVALID, "%s: %s reaches beyond its buffer of %llu bytes", op_, name,
           static_cast<unsigned long long>(bytes));
    }
    return memory.data + t.offset;
  }

  const char* op_;
  const Rules& rules_;
  const assay_args& args_;
  bool resolve_;
  DType act_ = DType::kNone;  // of the activations read so far
};

}  // namespace assay::backend
