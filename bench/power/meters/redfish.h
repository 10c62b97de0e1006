// SPDX-License-Identifier: Apache-2.0
// A meter over the BMC's Redfish service (DMTF DSP0266): the power of the whole node, as the BMC tells it.
//
// Read are a resource Power (PowerControl[].PowerConsumedWatts) or EnvironmentMetrics (PowerWatts.Reading). Settings
// come from the environment, so that no password stands on a command line:
//   ASSAY_REDFISH_CREDENTIALS                  a file, readable by its owner only, with user:password on its first line
//   ASSAY_REDFISH_USER, ASSAY_REDFISH_PASSWORD the same without a file
//   ASSAY_REDFISH_CA                           the CA certificate (PEM) that vouches for the BMC
//   ASSAY_REDFISH_INSECURE=1                   any certificate will do
#pragma once

#include <memory>
#include <string>

#include "bench/power/meter.h"

namespace assay::bench {

// url: with a path, that resource (a fragment, ".../Power#/PowerControl/1", names one of its entries); with a host
// only, the one chassis of it that reports a power is looked for. Fails with one line, which never holds a credential,
// where nothing can be read or more than one thing could be meant. Takes up to 40 s, and the time to look the host's
// name up.
Result<std::unique_ptr<Meter>> OpenRedfish(const std::string& url);

}  // namespace assay::bench
