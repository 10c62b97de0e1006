// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/step_inputs.h"

#include <algorithm>
#include <cstring>

#include "runtime/core/dtype.h"

namespace assay {

StepInputs::StepInputs(std::shared_ptr<Device> device, const StepCapacity& capacity) : capacity_(capacity) {
  struct Slot {
    Field* field;
    assay_dtype dtype;
    int64_t rows, cols;
  };
  const int64_t t = capacity.tokens, s = capacity.seqs, l = capacity.logits;
  const Slot slots[] = {
      {&samples_, ASSAY_I32, l, 0},
      {&given_, ASSAY_I32, t, 0},
      {&index_, ASSAY_I32, t, 0},
      {&ids_, ASSAY_I32, t, 0},
      {&positions_, ASSAY_I32, t, 0},
      {&slots_, ASSAY_I32, t, 0},
      {&q_offsets_, ASSAY_I32, s + 1, 0},
      {&kv_lens_, ASSAY_I32, s, 0},
      {&logit_rows_, ASSAY_I32, l, 0},
      {&targets_, ASSAY_I32, l, 0},
      {&temperature_, ASSAY_F32, l, 0},
      {&top_k_, ASSAY_I32, l, 0},
      {&top_p_, ASSAY_F32, l, 0},
      {&min_p_, ASSAY_F32, l, 0},
      {&seed_, ASSAY_I64, l, 0},
      {&step_, ASSAY_I32, l, 0},
      {&block_table_, ASSAY_I32, s, capacity.blocks_per_seq},
  };
  const uint64_t align = std::max<uint64_t>(device->info().buffer_alignment, 64);
  uint64_t offset = 0;
  for (const Slot& slot : slots) {
    slot.field->tensor = slot.cols ? MakeTensor(nullptr, offset, slot.dtype, {slot.rows, slot.cols})
                                   : MakeTensor(nullptr, offset, slot.dtype, {slot.rows});
    const uint64_t bytes = DTypeBytes(slot.dtype, static_cast<uint64_t>(slot.rows * std::max<int64_t>(slot.cols, 1)));
    offset += (bytes + align - 1) / align * align;
  }
  uploads_from_ = given_.tensor.offset;
  host_.assign(offset, 0);
  device_ = Buffer(device, offset, false);
  for (const Slot& slot : slots) {
    slot.field->tensor.buffer = device_.handle();
    slot.field->host = host_.data() + slot.field->tensor.offset;
  }
}

int64_t PromptRows(const StepItem& item) {
  const Request& request = item.sequence->request;
  if (!request.prompt_logprobs) return 0;
  const int64_t last = static_cast<int64_t>(request.prompt.size()) - 1;
  return std::max<int64_t>(0, std::min(item.tokens, last - item.begin));
}

void StepInputs::StageSampling(const StepItem& item, int64_t row) {
  const Request& request = item.sequence->request;
  const SamplingParams& p = request.sampling;
  temperature_.as<float>()[row] = p.temperature;
  top_k_.as<int32_t>()[row] = p.top_k;
  top_p_.as<float>()[row] = p.top_p;
  min_p_.as<float>()[row] = p.min_p;
  seed_.as<int64_t>()[row] = p.seed;
  step_.as<int32_t>()[row] =
      static_cast<int32_t>(item.begin + item.tokens) - static_cast<int32_t>(request.prompt.size());
}

void StepInputs::StageItem(const StepItem& item, int64_t s, int32_t block_size, Fill* fill) {
  const Sequence& seq = *item.sequence;
  const int64_t end = item.begin + item.tokens;
  const auto first_given = static_cast<int32_t>((given_.tensor.offset - samples_.tensor.offset) / sizeof(int32_t));
  for (int64_t p = item.begin; p < end; ++p) {
    const int64_t row = fill->tokens + (p - item.begin);
    const int32_t id = seq.tokens[p];
    given_.as<int32_t>()[row] = ids_.as<int32_t>()[row] = id;
    index_.as<int32_t>()[row] = id == kTokenInFlight ? seq.sample_row : first_given + static_cast<int32_t>(row);
    positions_.as<int32_t>()[row] = static_cast<int32_t>(p);
    slots_.as<int32_t>()[row] = static_cast<int32_t>(seq.block_table[p / block_size] * block_size + p % block_size);
  }
  kv_lens_.as<int32_t>()[s] = static_cast<int32_t>(end);
  std::copy(seq.block_table.begin(), seq.block_table.end(), block_table_.as<int32_t>() + s * capacity_.blocks_per_seq);
  fill->sample_of_item.push_back(item.samples ? static_cast<int32_t>(fill->samples) : -1);
  fill->prompt_rows_of_item.push_back(PromptRows(item));
  if (item.samples) {
    logit_rows_.as<int32_t>()[fill->samples] = static_cast<int32_t>(fill->tokens + item.tokens - 1);
    StageSampling(item, fill->samples++);
  }
  fill->tokens += item.tokens;
  q_offsets_.as<int32_t>()[s + 1] = static_cast<int32_t>(fill->tokens);
}

StepInputs::Fill StepInputs::Stage(std::span<const StepItem> items, int32_t block_size, int64_t padded_seqs) {
  Fill fill;
  fill.seqs = std::max<int64_t>(padded_seqs, static_cast<int64_t>(items.size()));
  ASSAY_CHECK(fill.seqs <= capacity_.seqs);
  int64_t total = 0;
  for (const StepItem& item : items) {
    ASSAY_CHECK(item.tokens > 0 && item.begin + item.tokens <= static_cast<int64_t>(item.sequence->tokens.size()));
    ASSAY_CHECK(static_cast<int64_t>(item.sequence->block_table.size()) <= capacity_.blocks_per_seq);
    total += item.tokens;
  }
  ASSAY_CHECK(total <= capacity_.tokens);

  q_offsets_.as<int32_t>()[0] = 0;
  for (size_t s = 0; s < items.size(); ++s) StageItem(items[s], static_cast<int64_t>(s), block_size, &fill);

  // Prompt log-probabilities: a row for each prompt token whose successor is known.
  int64_t first_row = 0, row = fill.samples;
  for (const StepItem& item : items) {
    const int64_t n = PromptRows(item);
    ASSAY_CHECK(row + n <= capacity_.logits);
    for (int64_t i = 0; i < n; ++i) {
      logit_rows_.as<int32_t>()[row] = static_cast<int32_t>(first_row + i);
      targets_.as<int32_t>()[row++] = item.sequence->tokens[item.begin + i + 1];
    }
    first_row += item.tokens;
  }
  fill.prompt_rows = row - fill.samples;

  for (int64_t s = static_cast<int64_t>(items.size()); s < fill.seqs; ++s) {
    const int64_t pad = fill.tokens++;
    given_.as<int32_t>()[pad] = ids_.as<int32_t>()[pad] = 0;
    index_.as<int32_t>()[pad] = -1;
    positions_.as<int32_t>()[pad] = 0;
    slots_.as<int32_t>()[pad] = -1;
    kv_lens_.as<int32_t>()[s] = 0;
    q_offsets_.as<int32_t>()[s + 1] = q_offsets_.as<int32_t>()[s];
    logit_rows_.as<int32_t>()[s] = -1;
    temperature_.as<float>()[s] = 0.0f;
  }
  staged_seqs_ = fill.seqs;
  return fill;
}

void StepInputs::Upload(Stream& stream) {
  stream.Upload(device_, uploads_from_, host_.data() + uploads_from_, host_.size() - uploads_from_);
}

void StepInputs::Adopt(std::span<const uint8_t> host, int64_t seqs) {
  ASSAY_CHECK(host.size() == host_.size());
  std::copy(host.begin(), host.end(), host_.begin());
  staged_seqs_ = seqs;
}

assay_host_lengths StepInputs::HostLengths() const {
  assay_host_lengths lengths{};
  lengths.struct_size = sizeof(lengths);
  lengths.sequences = static_cast<int32_t>(staged_seqs_);
  lengths.q_offsets = q_offsets_.as<int32_t>();
  lengths.kv_lens = kv_lens_.as<int32_t>();
  return lengths;
}

StepInputs::IdTensors StepInputs::Ids(int64_t tokens) const {
  IdTensors t;
  const uint64_t words =
      (given_.tensor.offset - samples_.tensor.offset) / sizeof(float) + static_cast<uint64_t>(capacity_.tokens);
  t.words = MakeTensor(device_.handle(), samples_.tensor.offset, ASSAY_F32, {static_cast<int64_t>(words), 1});
  t.index = index_.tensor.Rows(0, tokens);
  t.ids = MakeTensor(device_.handle(), ids_.tensor.offset, ASSAY_F32, {tokens, 1});
  return t;
}

StepTensors StepInputs::Tensors(int64_t tokens, int64_t seqs, int64_t logits) const {
  StepTensors t;
  t.ids = ids_.tensor.Rows(0, tokens);
  t.positions = positions_.tensor.Rows(0, tokens);
  t.slots = slots_.tensor.Rows(0, tokens);
  t.q_offsets = q_offsets_.tensor.Rows(0, seqs + 1);
  t.kv_lens = kv_lens_.tensor.Rows(0, seqs);
  t.block_table = block_table_.tensor.Rows(0, seqs);
  t.logit_rows = logit_rows_.tensor.Rows(0, logits);
  return t;
}

StepInputs::SamplingTensors StepInputs::Sampling(int64_t samples) const {
  return {temperature_.tensor.Rows(0, samples), top_k_.tensor.Rows(0, samples), top_p_.tensor.Rows(0, samples),
          min_p_.tensor.Rows(0, samples),       seed_.tensor.Rows(0, samples),  step_.tensor.Rows(0, samples)};
}

}  // namespace assay
