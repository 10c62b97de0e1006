#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Prints, under the name of a vendor's tool (by a link in a folder on PATH), that tool's view of one card.
#   power       the number in the file fake_watts beside the link, else FAKE_WATTS, else 100
#   FAKE_SWING  by so much more in even calls and less in odd ones, counted in FAKE_LOG (whole numbers)
#   FAKE_LOG    file to which each call appends "epoch_seconds watts"
#   FAKE_FAULT  hang, exit, garbage, nan or zero: what the calls number FAKE_FAULT_AT to FAKE_FAULT_UNTIL (else all
#               later ones) do, counted in FAKE_LOG
tool=${0##*/}
if [ -r "${0%/*}/fake_watts" ]; then read -r watts < "${0%/*}/fake_watts"; else watts=${FAKE_WATTS:-100}; fi

if [ -n "$FAKE_LOG" ]; then
  echo "$(date +%s.%N) $watts" >> "$FAKE_LOG"
  call=$(wc -l < "$FAKE_LOG")
  if [ -n "$FAKE_SWING" ]; then watts=$((watts + FAKE_SWING - 2 * FAKE_SWING * (call % 2))); fi
  if [ -n "$FAKE_FAULT_AT" ] && [ "$call" -ge "$FAKE_FAULT_AT" ] && [ "$call" -le "${FAKE_FAULT_UNTIL:-$call}" ]; then
    case $FAKE_FAULT in
      hang) exec sleep 1000 ;;
      exit) echo "$tool: the driver is not loaded" >&2; exit 1 ;;
      garbage) head -c 2000 /dev/urandom; exit 0 ;;
      nan) watts=nan ;;
      zero) watts=0 ;;
    esac
  fi
fi

# Filled up to a width where what follows must stay under its header.
padded=$(printf '%-9s' "$watts")
padded_w=$(printf '%-9s' "${watts}W")

case $tool in
  nvidia-smi)
    case "$*" in *csv*) ;; *) echo "$tool: the fake knows only --format=csv" >&2; exit 2 ;; esac
    echo 'index, uuid, name, power.draw.instant [W], power.draw [W], power.limit [W], clocks.current.sm [MHz], temperature.gpu'
    echo "0, GPU-0123, Fake H100, $watts W, [N/A], 700.00 W, 1980 MHz, 41" ;;
  npu-smi) cat << END
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 0     910B3               | OK            | $padded   41                0    / 0             |
| 0                         | 0000:C1:00.0  | 57          0    / 0          3382 / 65536         |
+===========================+===============+====================================================+
END
    ;;
  mx-smi) cat << END
|------------------------------------+---------------------+----------------------+
| GPU         NAME                   | Bus-id              | GPU-Util             |
| Temp        Pwr:Usage/Cap          | Memory-Usage        | GPU-State            |
|====================================+=====================+======================|
| 0           MetaX C500             | 0000:01:00.0        | 0%                   |
| 41C         ${watts}W / 350W             | 858/65536 MiB       | Available            |
+------------------------------------+---------------------+----------------------+
END
    ;;
  ht-smi) cat << END
|------------------+-----------------+---------------------+----------------------|
| Board       Name | GPU   Persist-M | Bus-id              | GPU-Util      sGPU-M |
| Pwr:Usage/Cap    | Temp       Perf | Memory-Usage        | GPU-State            |
|==================+=================+=====================+======================|
| 0      Mars X201 | 0           Off | 0000:98:00.0        | 0%          Disabled |
| ${watts}W / 350W       | 41C          P0 | 858/65536 MiB       | Available            |
+------------------+-----------------+---------------------+----------------------+
END
    ;;
  mthreads-gmi) cat << END
{ "Attached GPUs": "1",
  "GPU": [ { "Index": "0", "Product Name": "MTT S5000",
             "Temperature": { "GPU Current Temp": "41C" },
             "Power Readings": { "Power Draw ": "${watts}W", "Current Power Limit": "950.00W" } } ] }
END
    ;;
  hy-smi) cat << END
================================= System Management Interface ==================================
HCU     Temp     AvgPwr     Perf     PwrCap     VRAM%      HCU%      Dec%      Enc%      Mode
0       41.0C    ${padded_w}auto     800.0W     98%        100.0%    0.0%      0.0%      Normal
======================================== End of SMI Log ========================================
END
    ;;
  cnmon) cat << END
+-------------------------------+----------------------+-----------------------+
| Card  VF  Name       Firmware |               Bus-Id | Util        Ecc-Error |
| Fan   Temp      Pwr:Usage/Cap |         Memory-Usage | Mode     Compute-Mode |
|===============================+======================+=======================|
| 0     /   MLU590       v1.5.0 |         0000:4F:00.0 | 0%                  0 |
|  0%   41C        ${watts} W/ 550 W |     0 MiB/ 81920 MiB | FULL          Default |
+-------------------------------+----------------------+-----------------------+
END
    ;;
  ixsmi) cat << END
+-------------------------------+----------------------+----------------------+
| GPU  Name                     | Bus-Id               | Clock-SM  Clock-Mem  |
| Fan  Temp  Perf  Pwr:Usage/Cap|      Memory-Usage    | GPU-Util  Compute M. |
|===============================+======================+======================|
| 0    Iluvatar BI-V100         | 00000000:13:00.0     | 1500MHz   1600MHz    |
| N/A  41C   P0    ${watts}W / 250W  | 64MiB / 32768MiB     | 0%        Default    |
+-------------------------------+----------------------+----------------------+
END
    ;;
  xpu-smi | xpu_smi) cat << END
+-------------------------------+----------------------+----------------------+
| XPU  Name        Persistence-M| Bus-Id        Disp.A | Volatile Uncorr. ECC |
| Fan  Temp  Perf  Pwr:Usage/Cap|         Memory-Usage | XPU-Util  Compute M. |
|                               |             L3-Usage |            SR-IOV M. |
|===============================+======================+======================|
|   0  P800 OAM           N/A   | 00000000:03:00.0 N/A |                    0 |
| N/A   41C  N/A     ${watts}W / 400W |      0MiB / 98304MiB |      0%      Default |
|                               |      0MiB /    96MiB |             Disabled |
+-------------------------------+----------------------+----------------------+
END
    ;;
  efsmi) cat << END
|-----------------------------------------------------------------------------|
| DEV    NAME                 | Boot FW VER       | BUS-ID      ECC           |
| TEMP   Lpm   Pwr(Usage/Cap) | Mem      GCU Virt | DUsed       SN            |
|=============================================================================|
| 0      Enflame S60          | 33.6.2            | 00:2d:00.0  Enable        |
| 41℃    LP1      ${watts}W / 300W  | 49120MiB  Disable | 0%          A000000000001 |
+-----------------------------------------------------------------------------+
END
    ;;
  brsmi) cat << END
+-------------------------------------------------------------------------------+
| GPU  Id  |     Name     |  Mode  |  Temperature  |  Power  |  Memory      |
|===============================================================================|
|   0      | BIREN GPU    |  N/A   |   41°C        |  ${watts}W   |  32GB/64GB   |
+-------------------------------------------------------------------------------+
END
    ;;
  rocm-smi) cat << END
{"card0": {"Temperature (Sensor junction) (C)": "41.0", "Max Graphics Package Power (W)": "560.0",
           "Average Graphics Package Power (W)": "$watts", "sclk clock speed:": "(1700Mhz)"},
 "system": {"Driver version": "6.7"}}
END
    ;;
  amd-smi) cat << END
[{"gpu": 0, "power": {"socket_power": {"value": $watts, "unit": "W"}, "power_management": "ENABLED"},
  "temperature": {"edge": "N/A", "hotspot": {"value": 41, "unit": "C"}}}]
END
    ;;
  *) echo "$tool: no such tool to play" >&2; exit 2 ;;
esac
