/* What an encoder block does between its matrix products, for training in bfloat16 on one core of a CPU (fused.py):
   in one pass over a tensor where PyTorch takes several, with sums in float32. Tensors are contiguous and a row is a
   token; all is bfloat16 but weights, statistics and gradients of weights, which are float32. */

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef uint16_t bf16;

static inline float up(bf16 value) {
    uint32_t bits = (uint32_t)value << 16;
    float result;
    memcpy(&result, &bits, 4);
    return result;
}

/* To the nearest, ties to even, as PyTorch rounds. */
static inline bf16 down(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return (bf16)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

/* y = (layer norm of x) * mask * keep; mask (an element) and keep (a row) may be null. */
void norm_forward(const bf16 *restrict x, const float *restrict weight, const float *restrict bias,
                  const bf16 *restrict mask, const bf16 *restrict keep, bf16 *restrict y, float *restrict mean,
                  float *restrict scale, int64_t rows, int64_t hidden, float epsilon) {
    for (int64_t row = 0; row < rows; row++, x += hidden, y += hidden) {
        float sum = 0, squares = 0;
        for (int64_t i = 0; i < hidden; i++) sum += up(x[i]);
        const float middle = sum / hidden;
        for (int64_t i = 0; i < hidden; i++) squares += (up(x[i]) - middle) * (up(x[i]) - middle);
        const float factor = 1 / sqrtf(squares / hidden + epsilon), kept = keep ? up(keep[row]) : 1;
        mean[row] = middle;
        scale[row] = factor;
        if (mask) {
            const bf16 *restrict drawn = mask + row * hidden;
            for (int64_t i = 0; i < hidden; i++)
                y[i] = down(((up(x[i]) - middle) * factor * weight[i] + bias[i]) * up(drawn[i]) * kept);
        } else {
            for (int64_t i = 0; i < hidden; i++)
                y[i] = down(((up(x[i]) - middle) * factor * weight[i] + bias[i]) * kept);
        }
    }
}

/* gx = gradient through the norm + residual; those of weight and bias are added to. */
void norm_backward(const bf16 *restrict gy, const bf16 *restrict x, const float *restrict weight,
                   const bf16 *restrict mask, const bf16 *restrict keep, const float *restrict mean,
                   const float *restrict scale, const bf16 *restrict residual, bf16 *restrict gx,
                   float *restrict gweight, float *restrict gbias, int64_t rows, int64_t hidden) {
    float normal[hidden], inner[hidden];
    for (int64_t row = 0; row < rows; row++, gy += hidden, x += hidden, gx += hidden, residual += hidden) {
        const float kept = keep ? up(keep[row]) : 1, middle = mean[row], factor = scale[row];
        float first = 0, second = 0;
        if (mask) {
            const bf16 *restrict drawn = mask + row * hidden;
            for (int64_t i = 0; i < hidden; i++) inner[i] = up(gy[i]) * up(drawn[i]) * kept;
        } else {
            for (int64_t i = 0; i < hidden; i++) inner[i] = up(gy[i]) * kept;
        }
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

/* z[t] = sum over o of x[t + o] kernel[o], o from -size / 2 on, zeros outside; kernel is (size, hidden). */
void depthwise_forward(const bf16 *restrict x, const float *restrict kernel, bf16 *restrict z, int64_t batch,
                       int64_t tokens, int64_t hidden, int64_t size) {
    const int64_t reach = size / 2;
    float scratch[hidden];
    for (int64_t one = 0; one < batch; one++, x += tokens * hidden, z += tokens * hidden) {
        for (int64_t t = 0; t < tokens; t++) {
            for (int64_t i = 0; i < hidden; i++) scratch[i] = 0;
            const int64_t from = t < reach ? reach - t : 0, to = t + reach < tokens ? size : tokens - t + reach;
            for (int64_t o = from; o < to; o++) {
                const bf16 *restrict seen = x + (t + o - reach) * hidden;
                const float *restrict factor = kernel + o * hidden;
                for (int64_t i = 0; i < hidden; i++) scratch[i] += up(seen[i]) * factor[i];
            }
            for (int64_t i = 0; i < hidden; i++) z[t * hidden + i] = down(scratch[i]);
        }
    }
}

/* The gradient of the kernel is added to. */
void depthwise_backward(const bf16 *restrict gz, const bf16 *restrict x, const float *restrict kernel,
                        bf16 *restrict gx, float *restrict gkernel, int64_t batch, int64_t tokens, int64_t hidden,
                        int64_t size) {
    const int64_t reach = size / 2;
    float scratch[hidden];
    for (int64_t one = 0; one < batch; one++) {
        for (int64_t t = 0; t < tokens; t++) {
            for (int64_t i = 0; i < hidden; i++) scratch[i] = 0;
            const bf16 *restrict seen = x + t * hidden;
            for (int64_t o = 0; o < size; o++) {
                const int64_t at = t - o + reach; /* its output read this token at offset o */
                if (at < 0 || at >= tokens) continue;
                const bf16 *restrict gradient = gz + at * hidden;
                const float *restrict factor = kernel + o * hidden;
                float *restrict sum = gkernel + o * hidden;
                for (int64_t i = 0; i < hidden; i++) {
                    const float value = up(gradient[i]);
                    scratch[i] += value * factor[i];
                    sum[i] += value * up(seen[i]);
                }
            }
            for (int64_t i = 0; i < hidden; i++) gx[t * hidden + i] = down(scratch[i]);
        }
        x += tokens * hidden;
        gz += tokens * hidden;
        gx += tokens * hidden;
    }
}

/* out = x + (inner + bias), or x + max(inner + bias, 0) */
void residual_forward(const bf16 *restrict inner, const float *restrict bias, const bf16 *restrict x,
                      bf16 *restrict out, int64_t rows, int64_t hidden, int64_t relu) {
    const float least = relu ? 0 : -INFINITY;
    for (int64_t row = 0; row < rows; row++, inner += hidden, x += hidden, out += hidden)
        for (int64_t i = 0; i < hidden; i++) {
            const float value = up(inner[i]) + bias[i];
            out[i] = down((value < least ? least : value) + up(x[i]));
        }
}

/* ginner = g where inner + bias > 0, else 0; its sum over rows is added to gbias. */
void relu_backward(const bf16 *restrict g, const bf16 *restrict inner, const float *restrict bias,
                   bf16 *restrict ginner, float *restrict gbias, int64_t rows, int64_t hidden) {
    for (int64_t row = 0; row < rows; row++, g += hidden, inner += hidden, ginner += hidden)
        for (int64_t i = 0; i < hidden; i++) {
            const float value = up(inner[i]) + bias[i] > 0 ? up(g[i]) : 0;
            ginner[i] = down(value);
            gbias[i] += value;
        }
}

/* The sum of g over rows is added to gbias. */
void bias_backward(const bf16 *restrict g, float *restrict gbias, int64_t rows, int64_t hidden) {
    for (int64_t row = 0; row < rows; row++, g += hidden)
        for (int64_t i = 0; i < hidden; i++) gbias[i] += up(g[i]);
}
