/* The bound of throughput.py: float32 Euler-Maruyama on the double well
 *
 *     U(x) = x^4/4 - a x^3/3 - x^2/2,   x <- x - drift U'(x) + amplitude z,
 *
 * with the normals of normals.h, four steps a counter, written by hand for one thread. With
 * AVX-512: intrinsics, 16 replicas to a register. Elsewhere: loops of 64 that a compiler vectorises.
 * n is a multiple of 64, pos holds n positions, n_groups counts groups of four steps.
 */
#include "normals.h"

#ifdef __AVX512F__
#define CHAINS 4 /* independent registers in flight hide the latency of the rounds */

static inline vf step(vf x, vf z, vf a, vf drift, vf amplitude) {
  vf g = _mm512_mul_ps(x, _mm512_sub_ps(_mm512_mul_ps(x, _mm512_sub_ps(x, a)), F(1)));
  return _mm512_fmadd_ps(amplitude, z, _mm512_fnmadd_ps(drift, g, x));
}

void run(float *pos, int64_t n, float a, float drift, float amplitude, uint32_t key0,
         uint32_t key1, int64_t n_groups, uint32_t first) {
  vi iota = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (int64_t block = 0; block < n; block += 16 * CHAINS) {
    vf x[CHAINS];
    for (int u = 0; u < CHAINS; u++) x[u] = _mm512_loadu_ps(pos + block + 16 * u);
    for (int64_t group = 0; group < n_groups; group++) {
#pragma GCC unroll 4
      for (int u = 0; u < CHAINS; u++) {
        vf z[4];
        four_normals(_mm512_add_epi32(I(first + block + 16 * u), iota), group, 0, key0, key1, z);
        x[u] = step(x[u], z[0], F(a), F(drift), F(amplitude));
        x[u] = step(x[u], z[1], F(a), F(drift), F(amplitude));
        x[u] = step(x[u], z[2], F(a), F(drift), F(amplitude));
        x[u] = step(x[u], z[3], F(a), F(drift), F(amplitude));
      }
    }
    for (int u = 0; u < CHAINS; u++) _mm512_storeu_ps(pos + block + 16 * u, x[u]);
  }
}

#else
void run(float *pos, int64_t n, float a, float drift, float amplitude, uint32_t key0,
         uint32_t key1, int64_t n_groups, uint32_t first) {
  for (int64_t block = 0; block < n; block += LANES) {
    float x[LANES];
    memcpy(x, pos + block, sizeof x);
    for (int64_t group = 0; group < n_groups; group++) {
      for (int i = 0; i < LANES; i++) {
        float z[4], y = x[i];
        four_normals(first + (uint32_t)block + (uint32_t)i, (uint32_t)group, 0, key0, key1, z);
        y = y - drift * (y * (y * (y - a) - 1.0f)) + amplitude * z[0];
        y = y - drift * (y * (y * (y - a) - 1.0f)) + amplitude * z[1];
        y = y - drift * (y * (y * (y - a) - 1.0f)) + amplitude * z[2];
        x[i] = y - drift * (y * (y * (y - a) - 1.0f)) + amplitude * z[3];
      }
    }
    memcpy(pos + block, x, sizeof x);
  }
}
#endif
