/* The bound of transcendentals.py: float32 Euler-Maruyama on the Mueller-Brown surface
 *
 *     U(x, y) = sum_k A_k exp(a_k (x - u_k)^2 + b_k (x - u_k)(y - v_k) + c_k (y - v_k)^2),
 *     x <- x - drift dU/dx + amplitude z,   and y with its own normal,
 *
 * with the normals of normals.h and an exponential of its own, written by hand for one thread. With
 * AVX-512: intrinsics, 16 replicas to a register, and the instruction that scales by a power of
 * two. Elsewhere: loops of 64 that a compiler vectorises.
 * n is a multiple of 64; pos holds n x and then n y; n_groups counts groups of four steps.
 */
#include "normals.h"

#ifdef __AVX512F__
#ifndef CHAINS
#define CHAINS 2 /* independent registers in flight; more would not stay in registers */
#endif

static inline vf exponential(vf x) {
  vf k = _mm512_roundscale_ps(_mm512_mul_ps(x, F(1.44269504f)), 0);
  vf r = _mm512_fnmadd_ps(k, F(0.693359375f), x);
  r = _mm512_fmadd_ps(k, F(2.12194440e-4f), r);
  vf y = _mm512_fmadd_ps(F(1.3841009e-3f), r, F(8.3693685e-3f));
  y = _mm512_fmadd_ps(y, r, F(4.16680835e-2f));
  y = _mm512_fmadd_ps(y, r, F(1.66665152e-1f));
  y = _mm512_fmadd_ps(y, r, F(0.49999994f));
  y = _mm512_fmadd_ps(_mm512_mul_ps(y, r), r, _mm512_add_ps(r, F(1)));
  return _mm512_scalef_ps(y, k);
}

/* Adds one term's gradient; a2 and c2 are twice a and c. */
static inline void term(vf x, vf y, float A, float a2, float b, float c2, float u, float v, vf *gx,
                        vf *gy) {
  vf p = _mm512_sub_ps(x, F(u)), q = _mm512_sub_ps(y, F(v));
  vf along = _mm512_mul_ps(F(a2), p), across = _mm512_mul_ps(F(c2), q);
  if (b != 0) {
    along = _mm512_fmadd_ps(F(b), q, along);
    across = _mm512_fmadd_ps(F(b), p, across);
  }
  vf twice = _mm512_fmadd_ps(along, p, _mm512_mul_ps(across, q)); /* Euler: of degree two */
  vf e = _mm512_mul_ps(F(A), exponential(_mm512_mul_ps(F(.5f), twice)));
  *gx = _mm512_fmadd_ps(e, along, *gx);
  *gy = _mm512_fmadd_ps(e, across, *gy);
}

static inline void step(vf *x, vf *y, vf zx, vf zy, vf drift, vf amplitude) {
  vf gx = F(0), gy = F(0);
  term(*x, *y, -200, -2, 0, -20, 1, 0, &gx, &gy);
  term(*x, *y, -100, -2, 0, -20, 0, .5f, &gx, &gy);
  term(*x, *y, -170, -13, 11, -13, -.5f, 1.5f, &gx, &gy);
  term(*x, *y, 15, 1.4f, .6f, 1.4f, -1, 1, &gx, &gy);
  *x = _mm512_fmadd_ps(amplitude, zx, _mm512_fnmadd_ps(drift, gx, *x));
  *y = _mm512_fmadd_ps(amplitude, zy, _mm512_fnmadd_ps(drift, gy, *y));
}

void run(float *pos, int64_t n, float drift, float amplitude, uint32_t key0, uint32_t key1,
         int64_t n_groups, uint32_t first) {
  vi iota = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (int64_t block = 0; block < n; block += 16 * CHAINS) {
    vf x[CHAINS], y[CHAINS];
    for (int c = 0; c < CHAINS; c++) {
      x[c] = _mm512_loadu_ps(pos + block + 16 * c);
      y[c] = _mm512_loadu_ps(pos + n + block + 16 * c);
    }
    for (int64_t group = 0; group < n_groups; group++) {
      vf zx[CHAINS][4], zy[CHAINS][4];
#pragma GCC unroll 4
      for (int c = 0; c < CHAINS; c++) {
        vi replica = _mm512_add_epi32(I(first + block + 16 * c), iota);
        four_normals(replica, group, 0, key0, key1, zx[c]);
        four_normals(replica, group, 1, key0, key1, zy[c]);
      }
#pragma GCC unroll 4
      for (int j = 0; j < 4; j++) {
#pragma GCC unroll 4
        for (int c = 0; c < CHAINS; c++)
          step(x + c, y + c, zx[c][j], zy[c][j], F(drift), F(amplitude));
      }
    }
    for (int c = 0; c < CHAINS; c++) {
      _mm512_storeu_ps(pos + block + 16 * c, x[c]);
      _mm512_storeu_ps(pos + n + block + 16 * c, y[c]);
    }
  }
}

#else

static inline float exponential(float x) {
  x = x > 88.0f ? 88.0f : x;
  x = x < -87.0f ? -87.0f : x;
  float shifted = x * 1.44269504f + 12582912.0f, k = shifted - 12582912.0f;
  float r = x - k * 0.693359375f + k * 2.12194440e-4f;
  float y = 1.3841009e-3f * r + 8.3693685e-3f;
  y = y * r + 4.16680835e-2f;
  y = y * r + 1.66665152e-1f;
  y = y * r + 0.49999994f;
  y = y * r * r + r + 1.0f;
  return as_float(as_bits(y) + (as_bits(shifted) << 23)); /* |k| < 127: a normal number */
}

static inline void term(float x, float y, float A, float a2, float b, float c2, float u, float v,
                        float *gx, float *gy) {
  float p = x - u, q = y - v, along = a2 * p + b * q, across = c2 * q + b * p;
  float e = A * exponential(.5f * (along * p + across * q));
  *gx += e * along;
  *gy += e * across;
}

void run(float *pos, int64_t n, float drift, float amplitude, uint32_t key0, uint32_t key1,
         int64_t n_groups, uint32_t first) {
  for (int64_t block = 0; block < n; block += LANES) {
    float x[LANES], y[LANES], zx[4][LANES], zy[4][LANES];
    memcpy(x, pos + block, sizeof x);
    memcpy(y, pos + n + block, sizeof y);
    for (int64_t group = 0; group < n_groups; group++) {
      for (int i = 0; i < LANES; i++) {
        float zp[4], zq[4];
        uint32_t replica = first + (uint32_t)block + (uint32_t)i;
        four_normals(replica, (uint32_t)group, 0, key0, key1, zp);
        four_normals(replica, (uint32_t)group, 1, key0, key1, zq);
        zx[0][i] = zp[0], zx[1][i] = zp[1], zx[2][i] = zp[2], zx[3][i] = zp[3];
        zy[0][i] = zq[0], zy[1][i] = zq[1], zy[2][i] = zq[2], zy[3][i] = zq[3];
      }
      for (int j = 0; j < 4; j++) {
        for (int i = 0; i < LANES; i++) {
          float gx = 0, gy = 0;
          term(x[i], y[i], -200, -2, 0, -20, 1, 0, &gx, &gy);
          term(x[i], y[i], -100, -2, 0, -20, 0, .5f, &gx, &gy);
          term(x[i], y[i], -170, -13, 11, -13, -.5f, 1.5f, &gx, &gy);
          term(x[i], y[i], 15, 1.4f, .6f, 1.4f, -1, 1, &gx, &gy);
          x[i] = x[i] - drift * gx + amplitude * zx[j][i];
          y[i] = y[i] - drift * gy + amplitude * zy[j][i];
        }
      }
    }
    memcpy(pos + block, x, sizeof x);
    memcpy(pos + n + block, y, sizeof y);
  }
}
#endif
