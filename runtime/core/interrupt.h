// SPDX-License-Identifier: Apache-2.0
// Ctrl-C: a flag set by SIGINT and SIGTERM that long loops poll. A second signal ends the process at once.
#pragma once

namespace assay {

void InstallInterruptHandler();  // once, from main
bool WasInterrupted();           // any thread
void ThrowIfInterrupted();       // throws Interrupted

}  // namespace assay
