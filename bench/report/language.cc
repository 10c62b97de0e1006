// SPDX-License-Identifier: Apache-2.0
#include "bench/report/language.h"

#include <string_view>

namespace assay::bench {
namespace {

struct Phrase {
  const char *english, *chinese;
};

constexpr Phrase kPhrases[] = {
    {"unknown", "未知"},
    {"claimed", "声称"},
    {"; ", "；"},
    {", ", "，"},
    {": ", "："},
    // Roofline.
    {"performance", "性能"},
    {"arithmetic intensity, FLOP per byte", "算术强度（FLOP/字节）"},
    {"bandwidth unknown", "带宽未知"},
    {"compute limit unknown", "算力上限未知"},
    {"Both scales are logarithmic. The slope is what memory allows, the flat part what compute allows. Whiskers: 95 % "
     "intervals.",
     "两轴均为对数刻度。斜线为内存带宽的上限，水平线为算力的上限。误差线：95 % 置信区间。"},
    {"{}: {} FLOP per byte, {}", "{}：{} FLOP/字节，{}"},
    {"measured in this run", "本次实测"},
    {"claimed: {}", "声称：{}"},
    // Waterfall.
    {"roofline at the claimed peaks", "按声称峰值计算的 roofline 上限"},
    {"claimed memory bandwidth", "声称的内存带宽"},
    {"claimed TDP", "声称的 TDP"},
    {"claim of a user", "用户提供的声称"},
    {"claimed {}", "声称 {}"},
    {"actual {}", "实际 {}"},
    {"{} of the claim", "声称值的 {}"},
    {"share of the claim: unknown", "占声称值的比例：未知"},
    {"95 % interval: {} to {}", "95 % 置信区间：{} 至 {}"},
    {"no interval is known", "置信区间未知"},
    {"{} keeps {}", "{}：保留 {}"},
    {"{} keep {}", "{}：保留 {}"},
    {"{} gains {}", "{}：增益 {}"},
    {"{} gain {}", "{}：增益 {}"},
    {"promise", "承诺"},
    {"silicon", "芯片"},
    {"kernels", "算子"},
    {"throttling", "降频"},
    {"engine", "引擎"},
    {"serving", "服务"},
    {"from the claim to a roofline at the claimed peaks", "从该声称到按声称峰值计算的 roofline 上限"},
    {"from the claimed peaks to what the device attains", "从声称的峰值到芯片实际能达到的"},
    {"from there to operations of the model's shapes", "再到模型各形状下的单个算子"},
    {"clock in the run, against that in kernel timing", "模型运行时的时钟频率，相对于单测算子时"},
    {"from there to the engine's whole step", "再到推理引擎的完整一步"},
    {"from there to what a client sees", "再到客户端看到的"},
    {"loss", "损失"},
    {"gain", "增益"},
    {"share of the claim, logarithmic scale", "占声称值的比例，对数刻度"},
    {"Equal lengths are equal factors, so the stages add up to the ratio. Whiskers: 95 % intervals.",
     "等长即等比，因此各阶段相加即得总比例。误差线：95 % 置信区间。"},
    {"Claim by: {}; date: {}; confidence: {}", "声称来源：{}；日期：{}；可信度：{}"},
    {"dense, no sparsity counted", "稠密算力，不计稀疏加速"},
};

}  // namespace

const char* Say(Language language, const char* english) {
  if (language == Language::kEnglish) return english;
  for (const Phrase& phrase : kPhrases) {
    if (std::string_view(phrase.english) == english) return phrase.chinese;
  }
  return english;
}

}  // namespace assay::bench
