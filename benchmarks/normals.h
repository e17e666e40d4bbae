/* Four standard normals a counter, by hand: Philox4x32-10 and Box-Muller in float32.
 *
 * The counter is (replica, step / 4, component, purpose 1) and the key the seed, as in langevin, so
 * that kernels built on it compute langevin's trajectories up to rounding. With AVX-512:
 * intrinsics, 16 replicas to a register. Elsewhere: the same arithmetic for one replica, to be
 * called in loops that a compiler vectorises.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __AVX512F__
#include <immintrin.h>
typedef __m512 vf;
typedef __m512i vi;
#define F(c) _mm512_set1_ps(c)
#define I(c) _mm512_set1_epi32((int)(c))

int vector_bits(void) { return 512; }

static inline void multiply(vi a, vi m, vi *high, vi *low) {
  vi even = _mm512_mul_epu32(a, m), odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), m);
  *high = _mm512_mask_blend_epi32(0xAAAA, _mm512_srli_epi64(even, 32), odd);
  *low = _mm512_mask_blend_epi32(0xAAAA, even, _mm512_slli_epi64(odd, 32));
}

static inline vf minus_two_log(vi w) {
  static const float c[] = {-1.1514610310e-1f, 1.1676998740e-1f, -1.2420140846e-1f,
                            1.4249322787e-1f,  -1.6668057665e-1f, 2.0000714765e-1f,
                            -2.4999993993e-1f, 3.3333331174e-1f};
  vi b = _mm512_castps_si512(
      _mm512_mul_ps(_mm512_add_ps(_mm512_cvtepu32_ps(w), F(.5f)), F(0x1p-32f)));
  vi e = _mm512_srai_epi32(_mm512_sub_epi32(b, I(0x3f3504f3)), 23);
  vf f = _mm512_sub_ps(_mm512_castsi512_ps(_mm512_sub_epi32(b, _mm512_slli_epi32(e, 23))), F(1));
  vf z = _mm512_mul_ps(f, f), y = F(7.0376836292e-2f);
#pragma GCC unroll 8
  for (int k = 0; k < 8; k++) y = _mm512_fmadd_ps(y, f, F(c[k]));
  y = _mm512_fmadd_ps(_mm512_mul_ps(y, f), z, _mm512_fnmadd_ps(F(.5f), z, f));
  return _mm512_mul_ps(_mm512_fmadd_ps(_mm512_cvtepi32_ps(e), F(0.6931471805599453f), y), F(-2));
}

static inline void normal_pair(vi w0, vi w1, vf *first, vf *second) {
  vi doubled = _mm512_slli_epi32(w1, 1), sign = _mm512_and_epi32(I(0x80000000), doubled ^ w1);
  vi bits = _mm512_castps_si512(_mm512_sqrt_ps(minus_two_log(w0)));
  vf r = _mm512_castsi512_ps(_mm512_xor_epi32(bits, sign));
  vf t = _mm512_mul_ps(_mm512_cvtepi32_ps(doubled), F(3.141592653589793f * 0x1p-32f));
  vf z = _mm512_mul_ps(t, t);
  vf s = _mm512_fmadd_ps(z, F(2.6052249213065206e-6f), F(-1.98090752938704691e-4f));
  s = _mm512_fmadd_ps(z, s, F(8.33305106348305089e-3f));
  s = _mm512_fmadd_ps(z, s, F(-1.66666579919169388e-1f));
  s = _mm512_mul_ps(_mm512_fmadd_ps(z, s, F(0.999999995732819849f)), t);
  vf c = _mm512_fmadd_ps(z, F(2.31943867279537685e-5f), F(-1.38559271957591728e-3f));
  c = _mm512_fmadd_ps(z, c, F(4.16639894564809946e-2f));
  c = _mm512_fmadd_ps(z, c, F(-0.499999322931311567f));
  c = _mm512_fmadd_ps(z, c, F(1));
  *first = _mm512_mul_ps(r, c);
  *second = _mm512_mul_ps(r, s);
}

static inline void four_normals(vi replica, uint32_t group, uint32_t component, uint32_t k0,
                                uint32_t k1, vf z[4]) {
  vi c0 = replica, c1 = I(group), c2 = I(component), c3 = I(1), h0, l0, h1, l1;
#pragma GCC unroll 10
  for (int round = 0; round < 10; round++) {
    multiply(c0, I(0xD2511F53), &h0, &l0);
    multiply(c2, I(0xCD9E8D57), &h1, &l1);
    c0 = _mm512_ternarylogic_epi32(h1, c1, I(k0), 0x96);
    c1 = l1;
    c2 = _mm512_ternarylogic_epi32(h0, c3, I(k1), 0x96);
    c3 = l0;
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  normal_pair(c0, c1, z, z + 1);
  normal_pair(c2, c3, z + 2, z + 3);
}

#else
#define LANES 64

int vector_bits(void) { return 0; } /* the compiler's choice */

static inline float as_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

static inline uint32_t as_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return bits;
}

static inline float minus_two_log(uint32_t w) {
  uint32_t low = w & 0xFFFF, high = w >> 16; /* signed conversions vectorise everywhere */
  float u = (float)(int32_t)high * 65536.0f + (float)(int32_t)low;
  int32_t b = (int32_t)as_bits((u + .5f) * 0x1p-32f);
  int32_t e = (b - 0x3f3504f3) >> 23;
  float f = as_float((uint32_t)b - ((uint32_t)e << 23)) - 1.0f, z = f * f;
  float y = 7.0376836292e-2f;
  y = y * f - 1.1514610310e-1f;
  y = y * f + 1.1676998740e-1f;
  y = y * f - 1.2420140846e-1f;
  y = y * f + 1.4249322787e-1f;
  y = y * f - 1.6668057665e-1f;
  y = y * f + 2.0000714765e-1f;
  y = y * f - 2.4999993993e-1f;
  y = y * f + 3.3333331174e-1f;
  return -2.0f * (y * f * z - .5f * z + f + (float)e * 0.6931471805599453f);
}

static inline void normal_pair(uint32_t w0, uint32_t w1, float *first, float *second) {
  uint32_t doubled = w1 << 1, sign = (w1 ^ doubled) & 0x80000000u;
  float r = as_float(as_bits(sqrtf(minus_two_log(w0))) ^ sign);
  float t = (float)(int32_t)doubled * (3.141592653589793f * 0x1p-32f), z = t * t;
  float s = 2.6052249213065206e-6f * z - 1.98090752938704691e-4f;
  s = (s * z + 8.33305106348305089e-3f) * z - 1.66666579919169388e-1f;
  float c = 2.31943867279537685e-5f * z - 1.38559271957591728e-3f;
  c = (c * z + 4.16639894564809946e-2f) * z - 0.499999322931311567f;
  *first = r * (c * z + 1.0f);
  *second = r * ((s * z + 0.999999995732819849f) * t);
}

static inline void four_normals(uint32_t replica, uint32_t group, uint32_t component, uint32_t k0,
                                uint32_t k1, float z[4]) {
  uint32_t c0 = replica, c1 = group, c2 = component, c3 = 1;
#pragma GCC unroll 10
  for (int round = 0; round < 10; round++) {
    uint64_t p0 = (uint64_t)c0 * 0xD2511F53u, p1 = (uint64_t)c2 * 0xCD9E8D57u;
    c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
    c1 = (uint32_t)p1;
    c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
    c3 = (uint32_t)p0;
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  normal_pair(c0, c1, z, z + 1);
  normal_pair(c2, c3, z + 2, z + 3);
}
#endif
