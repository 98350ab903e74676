/* An encoder block's sub-layers, forward and backward, for training in bfloat16 on one core of a CPU (fused.py).

   Each function takes a batch example by example, and all that one example needs stays in the cache: x is read once and
   x + sublayer(dropout(norm(x))) written once. Between matrix products numbers are float32; what enters one is
   bfloat16, and sums are float32. Tensors are contiguous, (batch, tokens, hidden) in bfloat16, hidden a multiple of 32;
   weights, statistics and gradients of weights are float32, and gradients of weights are added to. Matrices that enter
   products, and those of them that are kept for the backward pass, are padded with zeros to a multiple of 32 tokens.
   All return 0, or 1 if there is no memory. */

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef __AVX512BF16__
#error "this processor does not multiply bfloat16"
#endif

typedef uint16_t bf16;
enum { hidden = HIDDEN }; /* known to the compiler: loops of known length */
typedef uint32_t __attribute__((may_alias)) pair; /* two bfloat16, the first in the low half */

static inline float up(bf16 value) {
    uint32_t bits = (uint32_t)value << 16;
    float result;
    memcpy(&result, &bits, 4);
    return result;
}

/* To the nearest, ties to even, as PyTorch rounds; no number stays none. */
static inline bf16 down(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    const uint32_t nearest = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return (bf16)((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : nearest);
}

static inline int64_t padded(int64_t tokens) { return (tokens + 31) & ~(int64_t)31; }

/* Memory of this thread, kept from call to call and after the thread; NULL if there is none. */
static char *scratch(int64_t bytes) {
    static _Thread_local char *held;
    static _Thread_local int64_t size;
    if (size < bytes) {
        free(held);
        held = aligned_alloc(64, (bytes + 63) & ~(int64_t)63);
        size = held ? bytes : 0;
    }
    return held;
}

static void *take(char **at, int64_t bytes) {
    void *taken = *at;
    *at += (bytes + 63) & ~(int64_t)63;
    return taken;
}

#define FLOATS(count) ((float *)take(&at, 4 * (count)))
#define HALVES(count) ((bf16 *)take(&at, 2 * (count)))

/* ---- matrix products: c (m, n) = or += a (m, k) b, float32; b as pairs of rows, (k / 2, n) pairs ---- */

#ifdef __AMX_BF16__

/* Ask the operating system for the tiles, once a process; 0 if it gives them. */
int fused_start(void) { return syscall(SYS_arch_prctl, 0x1023, 18) != 0; }

/* The compiler is not told that tiles read and write memory. */
#define BARRIER() __asm__ volatile("" ::: "memory")

static void tiles_begin(void) {
    static const struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } config = {1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
    _tile_loadconfig(&config);
}

static void tiles_end(void) { _tile_release(); }

static void product(const bf16 *a, int64_t lda, const bf16 *b, int64_t ldb, float *c, int64_t ldc, int64_t m, int64_t n,
                    int64_t k, int accumulate) {
    BARRIER();
    for (int64_t i = 0; i < m; i += 32)
        for (int64_t j = 0; j < n; j += 32) {
            float *at = c + i * ldc + j;
            if (accumulate) {
                _tile_loadd(0, at, ldc * 4);
                _tile_loadd(1, at + 16, ldc * 4);
                _tile_loadd(2, at + 16 * ldc, ldc * 4);
                _tile_loadd(3, at + 16 * ldc + 16, ldc * 4);
            } else {
                _tile_zero(0);
                _tile_zero(1);
                _tile_zero(2);
                _tile_zero(3);
            }
            for (int64_t l = 0; l < k; l += 32) {
                const bf16 *left = a + i * lda + l, *right = b + l * ldb + 2 * j;
                _tile_loadd(4, left, lda * 2);
                _tile_loadd(6, right, ldb * 4);
                _tile_loadd(7, right + 32, ldb * 4);
                _tile_dpbf16ps(0, 4, 6);
                _tile_dpbf16ps(1, 4, 7);
                _tile_loadd(5, left + 16 * lda, lda * 2);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
            }
            _tile_stored(0, at, ldc * 4);
            _tile_stored(1, at + 16, ldc * 4);
            _tile_stored(2, at + 16 * ldc, ldc * 4);
            _tile_stored(3, at + 16 * ldc + 16, ldc * 4);
        }
    BARRIER();
}

#else

int fused_start(void) { return 0; }
static void tiles_begin(void) {}
static void tiles_end(void) {}

static void product(const bf16 *a, int64_t lda, const bf16 *b, int64_t ldb, float *c, int64_t ldc, int64_t m, int64_t n,
                    int64_t k, int accumulate) {
    const pair *pairs = (const pair *)b;
    for (int64_t i = 0; i < m; i += 8)
        for (int64_t j = 0; j < n; j += 32) {
            __m512 sum[8][2];
            for (int r = 0; r < 8; r++)
                for (int s = 0; s < 2; s++)
                    sum[r][s] = accumulate ? _mm512_loadu_ps(c + (i + r) * ldc + j + 16 * s) : _mm512_setzero_ps();
            for (int64_t l = 0; l < k / 2; l++) {
                const __m512bh first = (__m512bh)_mm512_loadu_si512(pairs + l * ldb + j);
                const __m512bh second = (__m512bh)_mm512_loadu_si512(pairs + l * ldb + j + 16);
                for (int r = 0; r < 8; r++) {
                    const __m512bh left = (__m512bh)_mm512_set1_epi32((int)((const pair *)(a + (i + r) * lda))[l]);
                    sum[r][0] = _mm512_dpbf16_ps(sum[r][0], left, first);
                    sum[r][1] = _mm512_dpbf16_ps(sum[r][1], left, second);
                }
            }
            for (int r = 0; r < 8; r++)
                for (int s = 0; s < 2; s++) _mm512_storeu_ps(c + (i + r) * ldc + j + 16 * s, sum[r][s]);
        }
}

#endif

/* ---- forms in which matrices enter products ---- */

/* b: each two rows of a beside each other, (rows / 2, columns) pairs. */
static void paired(const bf16 *restrict a, int64_t lda, bf16 *restrict b, int64_t ldb, int64_t rows, int64_t columns) {
    pair *restrict out = (pair *)b;
    for (int64_t i = 0; i < rows; i += 2, out += ldb)
        for (int64_t j = 0; j < columns; j++) out[j] = a[i * lda + j] | (pair)a[(i + 1) * lda + j] << 16;
}

/* b[j][i] = a[i][j], of pairs; rows and columns are multiples of 16. */
static void turned(const pair *a, int64_t lda, pair *b, int64_t ldb, int64_t rows, int64_t columns) {
    for (int64_t i = 0; i < rows; i += 16)
        for (int64_t j = 0; j < columns; j += 16) {
            __m512i r[16], t[16];
            for (int l = 0; l < 16; l++) r[l] = _mm512_loadu_si512(a + (i + l) * lda + j);
            for (int l = 0; l < 16; l += 2) {
                t[l] = _mm512_unpacklo_epi32(r[l], r[l + 1]);
                t[l + 1] = _mm512_unpackhi_epi32(r[l], r[l + 1]);
            }
            for (int l = 0; l < 16; l += 4)
                for (int s = 0; s < 2; s++) {
                    r[l + 2 * s] = _mm512_unpacklo_epi64(t[l + s], t[l + 2 + s]);
                    r[l + 2 * s + 1] = _mm512_unpackhi_epi64(t[l + s], t[l + 2 + s]);
                }
            for (int l = 0; l < 4; l++) {
                const __m512i even = _mm512_shuffle_i32x4(r[l], r[l + 4], 0x88);
                const __m512i even_low = _mm512_shuffle_i32x4(r[l + 8], r[l + 12], 0x88);
                const __m512i odd = _mm512_shuffle_i32x4(r[l], r[l + 4], 0xdd);
                const __m512i odd_low = _mm512_shuffle_i32x4(r[l + 8], r[l + 12], 0xdd);
                pair *to = b + (j + l) * ldb + i;
                _mm512_storeu_si512(to, _mm512_shuffle_i32x4(even, even_low, 0x88));
                _mm512_storeu_si512(to + 4 * ldb, _mm512_shuffle_i32x4(odd, odd_low, 0x88));
                _mm512_storeu_si512(to + 8 * ldb, _mm512_shuffle_i32x4(even, even_low, 0xdd));
                _mm512_storeu_si512(to + 12 * ldb, _mm512_shuffle_i32x4(odd, odd_low, 0xdd));
            }
        }
}

/* Pairs of a's columns for c = .. a^T: (columns / 2, rows) pairs. */
static void paired_columns(const bf16 *a, int64_t lda, bf16 *b, int64_t ldb, int64_t rows, int64_t columns) {
    turned((const pair *)a, lda / 2, (pair *)b, ldb, rows, columns / 2);
}

/* b (columns, rows) = a^T out of a's pairs of rows. */
static void transposed(const bf16 *pairs, int64_t columns, bf16 *b, int64_t rows) {
    turned((const pair *)pairs, columns, (pair *)b, rows / 2, rows / 2, columns);
}

static void rounded(const float *restrict a, bf16 *restrict b, int64_t count) {
    for (int64_t i = 0; i < count; i++) b[i] = down(a[i]);
}

/* Weights (hidden, hidden) of a dense layer, out by in, at columns or rows `first` of b: for x w^T, and for g w. */
static void weights_forward(const float *w, bf16 *half, bf16 *b, int64_t ldb, int64_t first) {
    rounded(w, half, hidden * hidden);
    paired_columns(half, hidden, b + 2 * first, ldb, hidden, hidden);
}

static void weights_backward(const float *w, bf16 *half, bf16 *b, int64_t first) {
    rounded(w, half, hidden * hidden);
    paired(half, hidden, b + first * hidden, hidden, hidden, hidden);
}

/* ---- rows ---- */

static void zeros_after(bf16 *a, int64_t tokens, int64_t width) {
    memset(a + tokens * width, 0, 2 * (padded(tokens) - tokens) * width);
}

static void statistics(const bf16 *restrict x, float *restrict mean, float *restrict scale, int64_t tokens,
                       float epsilon) {
    for (int64_t t = 0; t < tokens; t++, x += hidden) {
        float sum = 0, squares = 0;
        for (int64_t i = 0; i < hidden; i++) sum += up(x[i]);
        const float middle = sum / hidden;
        for (int64_t i = 0; i < hidden; i++) squares += (up(x[i]) - middle) * (up(x[i]) - middle);
        mean[t] = middle;
        scale[t] = 1 / sqrtf(squares / hidden + epsilon);
    }
}

/* y = (layer norm of x) * mask * keep; mask (an element) and keep (a row) may be null. */
static void normed(const bf16 *restrict x, const float *restrict weight, const float *restrict bias,
                   const bf16 *restrict mask, const bf16 *restrict keep, const float *restrict mean,
                   const float *restrict scale, float *restrict y, int64_t tokens) {
    for (int64_t t = 0; t < tokens; t++, x += hidden, y += hidden) {
        const float kept = keep ? up(keep[t]) : 1, middle = mean[t], factor = scale[t];
        for (int64_t i = 0; i < hidden; i++) y[i] = ((up(x[i]) - middle) * factor * weight[i] + bias[i]) * kept;
        if (mask)
            for (int64_t i = 0; i < hidden; i++) y[i] *= up(mask[t * hidden + i]);
    }
}

/* gx = the gradient through the norm + that of the residual. */
static void norm_backward(const float *restrict gy, const bf16 *restrict x, const float *restrict weight,
                          const bf16 *restrict mask, const bf16 *restrict keep, const float *restrict mean,
                          const float *restrict scale, const bf16 *restrict residual, bf16 *restrict gx,
                          float *restrict gweight, float *restrict gbias, int64_t tokens) {
    float normal[hidden], inner[hidden];
    for (int64_t t = 0; t < tokens; t++, gy += hidden, x += hidden, gx += hidden, residual += hidden) {
        const float kept = keep ? up(keep[t]) : 1, middle = mean[t], factor = scale[t];
        float first = 0, second = 0;
        for (int64_t i = 0; i < hidden; i++) inner[i] = gy[i] * kept;
        if (mask)
            for (int64_t i = 0; i < hidden; i++) inner[i] *= up(mask[t * hidden + i]);
        for (int64_t i = 0; i < hidden; i++) {
            normal[i] = (up(x[i]) - middle) * factor;
            gweight[i] += inner[i] * normal[i];
            gbias[i] += inner[i];
            inner[i] *= weight[i];
            first += inner[i];
            second += inner[i] * normal[i];
        }
        first /= hidden;
        second /= hidden;
        for (int64_t i = 0; i < hidden; i++)
            gx[i] = down(factor * (inner[i] - first - normal[i] * second) + up(residual[i]));
    }
}

/* out[t] = sum over o of in[t + o] kernel[o], or kernel turned round; in begins size / 2 rows before. */
static void depthwise(const float *restrict in, const float *restrict kernel, float *restrict out, int64_t tokens,
                      int64_t size, int round) {
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t i = 0; i < hidden; i += 32) {
            float sum[32] = {0};
            for (int64_t o = 0; o < size; o++) {
                const float *seen = in + (t + o) * hidden + i,
                            *factor = kernel + (round ? size - 1 - o : o) * hidden + i;
                for (int l = 0; l < 32; l++) sum[l] += seen[l] * factor[l];
            }
            memcpy(out + t * hidden + i, sum, sizeof sum);
        }
}

static void depthwise_kernel(const float *restrict in, const float *restrict gz, float *restrict gkernel,
                             int64_t tokens, int64_t size) {
    for (int64_t o = 0; o < size; o++)
        for (int64_t i = 0; i < hidden; i += 32) {
            float sum[32];
            memcpy(sum, gkernel + o * hidden + i, sizeof sum);
            for (int64_t t = 0; t < tokens; t++) {
                const float *seen = in + (t + o) * hidden + i, *gradient = gz + t * hidden + i;
                for (int l = 0; l < 32; l++) sum[l] += seen[l] * gradient[l];
            }
            memcpy(gkernel + o * hidden + i, sum, sizeof sum);
        }
}

/* out = x + inner + bias */
static void residual(const bf16 *restrict x, const float *restrict inner, const float *restrict bias,
                     bf16 *restrict out, int64_t tokens) {
    for (int64_t t = 0; t < tokens; t++, x += hidden, inner += hidden, out += hidden)
        for (int64_t i = 0; i < hidden; i++) out[i] = down(up(x[i]) + (inner[i] + bias[i]));
}

/* The sum over rows is added to. */
static void columns(const bf16 *restrict a, int64_t lda, float *restrict sum, int64_t tokens) {
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t i = 0; i < hidden; i++) sum[i] += up(a[t * lda + i]);
}

/* Backward of a dense layer in -> g, by its weights as weights_backward gives them: gin, and what is added to gweight
   and gbias. pairs and turn are room for a matrix each. */
static void dense_backward(const bf16 *g, const bf16 *in, const bf16 *weights, float *gin, float *gweight, float *gbias,
                           bf16 *pairs, bf16 *turn, int64_t tokens) {
    const int64_t rows = padded(tokens);
    columns(g, hidden, gbias, tokens);
    paired(g, hidden, pairs, hidden, rows, hidden);
    transposed(pairs, hidden, turn, rows);
    paired(in, hidden, pairs, hidden, rows, hidden);
    product(turn, rows, pairs, hidden, gweight, hidden, hidden, hidden, rows, 1);
    product(g, hidden, weights, hidden, gin, hidden, rows, hidden, hidden, 0);
}

/* e^x for x <= 0, to a few of float32's last digits; 0 below -87. */
static inline float power(float x) {
    const float at = x < -87 ? -87 : x, whole = rintf(at * 1.44269504f);
    const float rest = at - whole * 0.693147182f;
    float sum = 1.9875691500e-4f;
    sum = sum * rest + 1.3981999507e-3f;
    sum = sum * rest + 8.3334519073e-3f;
    sum = sum * rest + 4.1665795894e-2f;
    sum = sum * rest + 1.6666665459e-1f;
    sum = sum * rest + 5.0000001201e-1f;
    sum = sum * rest * rest + rest + 1;
    const uint32_t bits = (uint32_t)((int32_t)whole + 127) << 23;
    float two;
    memcpy(&two, &bits, 4);
    return x < -87 ? 0 : sum * two;
}

/* ---- x + relu(dense(depthwise(dropout(norm(x)) * keep))) ---- */

int convolution_forward(const bf16 *x, const float *norm_weight, const float *norm_bias, const bf16 *mask,
                        const bf16 *keep, const float *kernel, const float *weight, const float *bias, bf16 *out,
                        bf16 *mixed, uint8_t *positive, float *mean, float *scale, int64_t batch, int64_t tokens,
                        int64_t size, float epsilon) {
    const int64_t rows = padded(tokens), one = tokens * hidden, reach = size / 2;
    char *at = scratch(4 * (rows + size) * hidden + 4 * rows * hidden + 4 * hidden * hidden + 1024);
    if (!at) return 1;
    float *y = FLOATS((tokens + 2 * reach) * hidden), *z = FLOATS(rows * hidden);
    bf16 *right = HALVES(hidden * hidden), *half = HALVES(hidden * hidden);
    weights_forward(weight, half, right, hidden, 0);
    memset(y, 0, 4 * reach * hidden);
    memset(y + (reach + tokens) * hidden, 0, 4 * reach * hidden);
    tiles_begin();
    for (int64_t b = 0; b < batch; b++) {
        statistics(x, mean, scale, tokens, epsilon);
        normed(x, norm_weight, norm_bias, mask, keep, mean, scale, y + reach * hidden, tokens);
        depthwise(y, kernel, z, tokens, size, 0);
        rounded(z, mixed, one);
        zeros_after(mixed, tokens, hidden);
        product(mixed, hidden, right, hidden, z, hidden, rows, hidden, hidden, 0);
        for (int64_t t = 0; t < tokens; t++)
            for (int64_t i = 0; i < hidden; i++) {
                const float value = z[t * hidden + i] + bias[i];
                positive[t * hidden + i] = value > 0;
                out[t * hidden + i] = down((value < 0 ? 0 : value) + up(x[t * hidden + i]));
            }
        x += one, out += one, mixed += rows * hidden, positive += one, mean += tokens, scale += tokens;
        if (mask) mask += one;
        keep += tokens;
    }
    tiles_end();
    return 0;
}

int convolution_backward(const bf16 *g, const bf16 *x, const float *norm_weight, const float *norm_bias,
                         const bf16 *mask, const bf16 *keep, const float *kernel, const float *weight,
                         const bf16 *mixed, const uint8_t *positive, const float *mean, const float *scale, bf16 *gx,
                         float *gnorm_weight, float *gnorm_bias, float *gkernel, float *gweight, float *gbias,
                         int64_t batch, int64_t tokens, int64_t size) {
    const int64_t rows = padded(tokens), one = tokens * hidden, reach = size / 2;
    char *at = scratch(4 * (3 * rows + 2 * size) * hidden + 6 * rows * hidden + 4 * hidden * hidden + 1024);
    if (!at) return 1;
    float *y = FLOATS((tokens + 2 * reach) * hidden), *gz = FLOATS((rows + 2 * reach) * hidden);
    float *gy = FLOATS(one), *gz_inner = gz + reach * hidden;
    bf16 *left = HALVES(rows * hidden), *pairs = HALVES(rows * hidden), *turn = HALVES(rows * hidden);
    bf16 *right = HALVES(hidden * hidden), *half = HALVES(hidden * hidden);
    weights_backward(weight, half, right, 0);
    memset(y, 0, 4 * reach * hidden);
    memset(y + (reach + tokens) * hidden, 0, 4 * reach * hidden);
    memset(gz, 0, 4 * reach * hidden);
    zeros_after(left, tokens, hidden);
    tiles_begin();
    for (int64_t b = 0; b < batch; b++) {
        for (int64_t i = 0; i < one; i++) left[i] = positive[i] ? g[i] : 0;
        dense_backward(left, mixed, right, gz_inner, gweight, gbias, pairs, turn, tokens);
        memset(gz_inner + one, 0, 4 * reach * hidden);
        normed(x, norm_weight, norm_bias, mask, keep, mean, scale, y + reach * hidden, tokens);
        depthwise(gz, kernel, gy, tokens, size, 1);
        depthwise_kernel(y, gz_inner, gkernel, tokens, size);
        norm_backward(gy, x, norm_weight, mask, keep, mean, scale, g, gx, gnorm_weight, gnorm_bias, tokens);
        g += one, x += one, mixed += rows * hidden, positive += one, mean += tokens, scale += tokens, gx += one;
        if (mask) mask += one;
        keep += tokens;
    }
    tiles_end();
    return 0;
}

/* ---- x + dense(attention(dropout(norm(x)))), one head ---- */

/* s: products of queries and keys, then their probabilities; p: the same, rounded, and 0 beyond the tokens. total: of
   each row, the logarithm of the sum of exponentials: found, or read when it is asked for again. */
static void probabilities(float *restrict s, bf16 *restrict p, const float *restrict bias, float *restrict total,
                          int64_t tokens, float scale, int again) {
    const int64_t rows = padded(tokens);
    for (int64_t t = 0; t < tokens; t++, s += rows, p += rows) {
        float factor = 1, most = total[t], sum = 0;
        for (int64_t j = 0; j < tokens; j++) s[j] = s[j] * scale + bias[j];
        for (int64_t j = tokens; j < rows; j++) s[j] = -INFINITY;
        if (!again) {
            __m512 largest = _mm512_loadu_ps(s);
            for (int64_t j = 16; j < rows; j += 16) largest = _mm512_max_ps(largest, _mm512_loadu_ps(s + j));
            most = _mm512_reduce_max_ps(largest);
        }
        for (int64_t j = 0; j < rows; j++) {
            s[j] = power(s[j] - most);
            sum += s[j];
        }
        if (!again) {
            total[t] = most + logf(sum);
            factor = 1 / sum;
        }
        for (int64_t j = 0; j < rows; j++) p[j] = down(s[j] *= factor);
    }
    memset(p, 0, 2 * (rows - tokens) * rows);
}

int attention_forward(const bf16 *x, const float *norm_weight, const float *norm_bias, const bf16 *mask,
                      const float *seen, const float *query, const float *query_bias, const float *key,
                      const float *key_bias, const float *value, const float *value_bias, const float *output,
                      const float *output_bias, bf16 *out, bf16 *states, bf16 *read, float *total, float *mean,
                      float *scale, int64_t batch, int64_t tokens, float epsilon) {
    const int64_t rows = padded(tokens), one = tokens * hidden, wide = 3 * hidden;
    const float factor = 1 / sqrtf(hidden);
    char *at = scratch(4 * rows * wide + 6 * rows * rows + 4 * rows * hidden + 10 * hidden * hidden + 1024);
    if (!at) return 1;
    float *y = FLOATS(rows * wide), *s = FLOATS(rows * rows);
    bf16 *p = HALVES(rows * rows), *left = HALVES(rows * hidden), *pairs = HALVES(rows * hidden);
    bf16 *right = HALVES(hidden * wide);
    bf16 *last = HALVES(hidden * hidden), *half = HALVES(hidden * hidden);
    weights_forward(query, half, right, wide, 0);
    weights_forward(key, half, right, wide, hidden);
    weights_forward(value, half, right, wide, 2 * hidden);
    weights_forward(output, half, last, hidden, 0);
    const float *biases[3] = {query_bias, key_bias, value_bias};
    zeros_after(left, tokens, hidden);
    tiles_begin();
    for (int64_t b = 0; b < batch; b++) {
        statistics(x, mean, scale, tokens, epsilon);
        normed(x, norm_weight, norm_bias, mask, NULL, mean, scale, y, tokens);
        rounded(y, left, one);
        product(left, hidden, right, wide, y, wide, rows, wide, hidden, 0);
        for (int64_t t = 0; t < tokens; t++)
            for (int part = 0; part < 3; part++)
                for (int64_t i = 0; i < hidden; i++)
                    states[t * wide + part * hidden + i] = down(y[t * wide + part * hidden + i] + biases[part][i]);
        zeros_after(states, tokens, wide);
        paired_columns(states + hidden, wide, pairs, rows, rows, hidden);
        product(states, wide, pairs, rows, s, rows, rows, rows, hidden, 0);
        probabilities(s, p, seen, total, tokens, factor, 0);
        paired(states + 2 * hidden, wide, pairs, hidden, rows, hidden);
        product(p, rows, pairs, hidden, y, hidden, rows, hidden, rows, 0);
        rounded(y, read, one);
        zeros_after(read, tokens, hidden);
        product(read, hidden, last, hidden, y, hidden, rows, hidden, hidden, 0);
        residual(x, y, output_bias, out, tokens);
        x += one, out += one, states += rows * wide, read += rows * hidden, seen += tokens;
        total += tokens, mean += tokens, scale += tokens;
        if (mask) mask += one;
    }
    tiles_end();
    return 0;
}

int attention_backward(const bf16 *g, const bf16 *x, const float *norm_weight, const float *norm_bias, const bf16 *mask,
                       const float *seen, const float *query, const float *key, const float *value, const float *output,
                       const bf16 *states, const bf16 *read, float *total, const float *mean, const float *scale,
                       bf16 *gx, float *gnorm_weight, float *gnorm_bias, float *gquery, float *gquery_bias, float *gkey,
                       float *gkey_bias, float *gvalue, float *gvalue_bias, float *goutput, float *goutput_bias,
                       int64_t batch, int64_t tokens) {
    const int64_t rows = padded(tokens), one = tokens * hidden, wide = 3 * hidden;
    const float factor = 1 / sqrtf(hidden);
    char *at = scratch(8 * rows * rows + 4 * rows * rows + 4 * rows * wide + 2 * rows * (3 * hidden + 3 * wide) +
                       10 * hidden * hidden + 2048);
    if (!at) return 1;
    float *s = FLOATS(rows * rows), *gs = FLOATS(rows * rows), *gy = FLOATS(rows * wide);
    bf16 *p = HALVES(rows * rows), *gp = HALVES(rows * rows);
    bf16 *left = HALVES(rows * hidden), *gread = HALVES(rows * hidden), *others = HALVES(rows * hidden);
    bf16 *gstates = HALVES(rows * wide), *turn = HALVES(rows * wide), *pairs = HALVES(rows * wide);
    bf16 *right = HALVES(wide * hidden), *last = HALVES(hidden * hidden), *half = HALVES(hidden * hidden);
    bf16 *square = (bf16 *)gs; /* pairs of a (rows, rows) matrix, when gs is read */
    weights_backward(query, half, right, 0);
    weights_backward(key, half, right, hidden);
    weights_backward(value, half, right, 2 * hidden);
    weights_backward(output, half, last, 0);
    float *gweights[3] = {gquery, gkey, gvalue}, *gbiases[3] = {gquery_bias, gkey_bias, gvalue_bias};
    zeros_after(left, tokens, hidden);
    zeros_after(gread, tokens, hidden);
    zeros_after(gstates, tokens, wide);
    tiles_begin();
    for (int64_t b = 0; b < batch; b++) {
        memcpy(left, g, 2 * one);
        dense_backward(left, read, last, gy, goutput, goutput_bias, pairs, turn, tokens);
        rounded(gy, gread, one);

        paired_columns(states + hidden, wide, pairs, rows, rows, hidden);
        product(states, wide, pairs, rows, s, rows, rows, rows, hidden, 0);
        probabilities(s, p, seen, total, tokens, factor, 1);
        paired_columns(states + 2 * hidden, wide, pairs, rows, rows, hidden);
        product(gread, hidden, pairs, rows, gs, rows, rows, rows, hidden, 0);
        for (int64_t t = 0; t < tokens; t++) {
            float mean_gradient = 0;
            for (int64_t j = 0; j < tokens; j++) mean_gradient += s[t * rows + j] * gs[t * rows + j];
            for (int64_t j = 0; j < rows; j++)
                gp[t * rows + j] = down(s[t * rows + j] * (gs[t * rows + j] - mean_gradient) * factor);
        }
        memset(gp + tokens * rows, 0, 2 * (rows - tokens) * rows);

        paired(states + hidden, wide, pairs, hidden, rows, hidden);
        product(gp, rows, pairs, hidden, gy, wide, rows, hidden, rows, 0);
        paired(gp, rows, square, rows, rows, rows);
        transposed(square, rows, gp, rows);
        paired(states, wide, pairs, hidden, rows, hidden);
        product(gp, rows, pairs, hidden, gy + hidden, wide, rows, hidden, rows, 0);
        paired(p, rows, square, rows, rows, rows);
        transposed(square, rows, p, rows);
        paired(gread, hidden, pairs, hidden, rows, hidden);
        product(p, rows, pairs, hidden, gy + 2 * hidden, wide, rows, hidden, rows, 0);
        rounded(gy, gstates, tokens * wide);

        normed(x, norm_weight, norm_bias, mask, NULL, mean, scale, gy, tokens);
        rounded(gy, left, one);
        paired(left, hidden, others, hidden, rows, hidden);
        paired(gstates, wide, pairs, wide, rows, wide);
        transposed(pairs, wide, turn, rows);
        for (int part = 0; part < 3; part++) {
            columns(gstates + part * hidden, wide, gbiases[part], tokens);
            product(turn + part * hidden * rows, rows, others, hidden, gweights[part], hidden, hidden, hidden, rows, 1);
        }
        product(gstates, wide, right, hidden, gy, hidden, rows, hidden, wide, 0);
        norm_backward(gy, x, norm_weight, mask, NULL, mean, scale, g, gx, gnorm_weight, gnorm_bias, tokens);
        g += one, x += one, gx += one, states += rows * wide, read += rows * hidden, seen += tokens;
        total += tokens, mean += tokens, scale += tokens;
        if (mask) mask += one;
    }
    tiles_end();
    return 0;
}

/* ---- x + dense(relu(dense(dropout(norm(x))))) ---- */

int feedforward_forward(const bf16 *x, const float *norm_weight, const float *norm_bias, const bf16 *mask,
                        const float *inner, const float *inner_bias, const float *outer, const float *outer_bias,
                        bf16 *out, bf16 *middle, float *mean, float *scale, int64_t batch, int64_t tokens,
                        float epsilon) {
    const int64_t rows = padded(tokens), one = tokens * hidden;
    char *at = scratch(6 * rows * hidden + 6 * hidden * hidden + 1024);
    if (!at) return 1;
    float *y = FLOATS(rows * hidden);
    bf16 *left = HALVES(rows * hidden), *first = HALVES(hidden * hidden), *second = HALVES(hidden * hidden);
    bf16 *half = HALVES(hidden * hidden);
    weights_forward(inner, half, first, hidden, 0);
    weights_forward(outer, half, second, hidden, 0);
    zeros_after(left, tokens, hidden);
    tiles_begin();
    for (int64_t b = 0; b < batch; b++) {
        statistics(x, mean, scale, tokens, epsilon);
        normed(x, norm_weight, norm_bias, mask, NULL, mean, scale, y, tokens);
        rounded(y, left, one);
        product(left, hidden, first, hidden, y, hidden, rows, hidden, hidden, 0);
        for (int64_t t = 0; t < tokens; t++)
            for (int64_t i = 0; i < hidden; i++) {
                const float value = y[t * hidden + i] + inner_bias[i];
                middle[t * hidden + i] = down(value < 0 ? 0 : value);
            }
        zeros_after(middle, tokens, hidden);
        product(middle, hidden, second, hidden, y, hidden, rows, hidden, hidden, 0);
        residual(x, y, outer_bias, out, tokens);
        x += one, out += one, middle += rows * hidden, mean += tokens, scale += tokens;
        if (mask) mask += one;
    }
    tiles_end();
    return 0;
}

int feedforward_backward(const bf16 *g, const bf16 *x, const float *norm_weight, const float *norm_bias,
                         const bf16 *mask, const float *inner, const float *outer, const bf16 *middle,
                         const float *mean, const float *scale, bf16 *gx, float *gnorm_weight, float *gnorm_bias,
                         float *ginner, float *ginner_bias, float *gouter, float *gouter_bias, int64_t batch,
                         int64_t tokens) {
    const int64_t rows = padded(tokens), one = tokens * hidden;
    char *at = scratch(12 * rows * hidden + 6 * hidden * hidden + 1024);
    if (!at) return 1;
    float *y = FLOATS(rows * hidden);
    bf16 *left = HALVES(rows * hidden), *saved = HALVES(rows * hidden), *pairs = HALVES(rows * hidden);
    bf16 *turn = HALVES(rows * hidden);
    bf16 *first = HALVES(hidden * hidden), *second = HALVES(hidden * hidden), *half = HALVES(hidden * hidden);
    weights_backward(inner, half, first, 0);
    weights_backward(outer, half, second, 0);
    zeros_after(left, tokens, hidden);
    zeros_after(saved, tokens, hidden);
    tiles_begin();
    for (int64_t b = 0; b < batch; b++) {
        memcpy(left, g, 2 * one);
        dense_backward(left, middle, second, y, gouter, gouter_bias, pairs, turn, tokens);
        for (int64_t i = 0; i < one; i++) left[i] = up(middle[i]) > 0 ? down(y[i]) : 0;
        normed(x, norm_weight, norm_bias, mask, NULL, mean, scale, y, tokens);
        rounded(y, saved, one);
        dense_backward(left, saved, first, y, ginner, ginner_bias, pairs, turn, tokens);
        norm_backward(y, x, norm_weight, mask, NULL, mean, scale, g, gx, gnorm_weight, gnorm_bias, tokens);
        g += one, x += one, middle += rows * hidden, mean += tokens, scale += tokens, gx += one;
        if (mask) mask += one;
    }
    tiles_end();
    return 0;
}
