/* SPDX-License-Identifier: Apache-2.0
 * Between the program and assay-mpi.so, the only part that is linked to an MPI library. The program opens it beside
 * itself when it runs as one of several ranks, so that it starts without MPI everywhere else. One thread at a time,
 * except abort_all. Errors of MPI itself end all ranks. */
#ifndef ASSAY_MPI_H_
#define ASSAY_MPI_H_

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct assay_mpi {
  uint32_t struct_size;
  int rank, size;
  int local_rank, local_size; /* among the ranks on this host */
  void (*all_reduce_sum)(float* data, int64_t n);
  void (*all_gather)(const void* mine, int64_t bytes, void* all);
  /* From rank 0. idle: the wait may be long, so the rank sleeps between its looks. */
  void (*broadcast)(void* data, int64_t bytes, int idle);
  /* Waits for all ranks to call it, then ends MPI; 0 if they did not within so many seconds. */
  int (*leave)(double seconds);
  void (*abort_all)(int code);
} assay_mpi;

/* Starts MPI. NULL, and a line in `why`, if this MPI library cannot do what is needed. */
typedef const assay_mpi* (*assay_mpi_join_fn)(char* why, uint64_t why_size);
#define ASSAY_MPI_JOIN_SYMBOL "assay_mpi_join"

#ifdef __cplusplus
}
#endif
#endif /* ASSAY_MPI_H_ */
