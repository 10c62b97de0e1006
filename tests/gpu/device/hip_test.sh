#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Compiles the portable kernels with AMD's compiler: hip_test.sh OBJECT KERNEL...
object=$1
shift
for kernel in "$@"; do
  hipcc --offload-arch=gfx906 --offload-arch=gfx90a -std=c++17 -O1 -I. -Werror -c "$kernel" -o "$object" || exit 1
done
