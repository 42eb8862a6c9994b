// nan: prints the bits of what arithmetic on floats gives, NaNs above all: one
// line for each instruction, a hash over all pairs of some operands, and the
// NaN of 0/0. It also prints one as printf does.
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef float f4 __attribute__((vector_size(16)));
typedef double d2 __attribute__((vector_size(16)));
typedef uint32_t u4 __attribute__((vector_size(16)));
typedef uint64_t u2 __attribute__((vector_size(16)));

static volatile uint32_t bits32[] = {
    0x00000000, 0x80000000, 0x3F800000, 0xBFC00000, 0x7F800000, 0xFF800000, 0x7FC00000,
    0xFFC00000, 0x7FC12345, 0xFFC54321, 0x7F800001, 0xFFA00002, 0x00000001, 0x7F7FFFFF};
static volatile uint64_t bits64[] = {
    0x0000000000000000, 0x8000000000000000, 0x3FF0000000000000, 0xBFF8000000000000, 0x7FF0000000000000,
    0xFFF0000000000000, 0x7FF8000000000000, 0xFFF8000000000000, 0x7FF8123456789ABC, 0xFFF8CBA987654321,
    0x7FF0000000000001, 0xFFF4000000000002, 0x0000000000000001, 0x7FEFFFFFFFFFFFFF};
#define N 14

static float f32(int i) {
  uint32_t b = bits32[i];
  float f;
  memcpy(&f, &b, 4);
  return f;
}
static double f64(int i) {
  uint64_t b = bits64[i];
  double d;
  memcpy(&d, &b, 8);
  return d;
}

static uint64_t hash;
static void fold(const void *p, int n) {
  const unsigned char *b = p;
  while (n--) hash = (hash ^ *b++) * 0x100000001B3;
}
static void say(const char *name) {
  printf("%s %016llx\n", name, (unsigned long long)hash);
  hash = 0xCBF29CE484222325;
}

#define OP2(name, type, get, expression)             \
  for (int i = 0; i < N; i++)                        \
    for (int j = 0; j < N; j++) {                    \
      type a = get(i), b = get(j), r = (expression); \
      fold(&r, sizeof r);                            \
    }                                                \
  say(name);
#define OP1(name, type, get, result, expression) \
  for (int i = 0; i < N; i++) {                  \
    type a = get(i);                             \
    result r = (expression);                     \
    fold(&r, sizeof r);                          \
  }                                              \
  say(name);

__attribute__((target("simd128"), noinline)) static void vectors(void) {
  for (int i = 0; i < N; i++)
    for (int j = 0; j < N; j++) {
      f4 a = {f32(i), f32(j), f32(i), 1}, b = {f32(j), f32(j), f32(i), 0}, r;
      r = a + b, fold(&r, 16);
      r = a - b, fold(&r, 16);
      r = a * b, fold(&r, 16);
      r = a / b, fold(&r, 16);
      r = (a + b) * (a - b) / b, fold(&r, 16);
      r = __builtin_wasm_sqrt_f32x4(a), fold(&r, 16);
      r = __builtin_wasm_min_f32x4(a, b), fold(&r, 16);
      r = __builtin_wasm_max_f32x4(a, b), fold(&r, 16);
      r = __builtin_wasm_pmin_f32x4(a, b), fold(&r, 16);
      r = __builtin_wasm_ceil_f32x4(a), fold(&r, 16);
      r = __builtin_wasm_nearest_f32x4(a), fold(&r, 16);
    }
  say("f32x4");
  for (int i = 0; i < N; i++)
    for (int j = 0; j < N; j++) {
      d2 a = {f64(i), f64(j)}, b = {f64(j), f64(j)}, r;
      r = a + b, fold(&r, 16);
      r = a - b, fold(&r, 16);
      r = a * b, fold(&r, 16);
      r = a / b, fold(&r, 16);
      r = (a + b) * (a - b) / b, fold(&r, 16);
      r = __builtin_wasm_sqrt_f64x2(a), fold(&r, 16);
      r = __builtin_wasm_min_f64x2(a, b), fold(&r, 16);
      r = __builtin_wasm_max_f64x2(a, b), fold(&r, 16);
      r = __builtin_wasm_pmax_f64x2(a, b), fold(&r, 16);
      r = __builtin_wasm_floor_f64x2(a), fold(&r, 16);
      r = __builtin_wasm_nearest_f64x2(a), fold(&r, 16);
      f4 n = (f4)(a / b) + (f4)b; // lanes of another width
      fold(&n, 16);
    }
  say("f64x2");
}

static void keep(const char *how, double d, int i) {
  uint64_t bits;
  memcpy(&bits, &d, 8);
  if (bits != bits64[i]) printf("%s changed %016llx\n", how, (unsigned long long)bits);
}

// moved lets NaNs with payloads, as interpreters keep pointers in, go wherever
// other floats go, without calculating with them.
__attribute__((noinline)) static double choose(double a, double b, int first) { return first ? a : b; }
static void moved(void) {
  static volatile double place;
  for (int i = 0; i < N; i++) {
    double d = f64(i);
    keep("call", choose(d, d * 3, 1), i);
    for (int j = 0; j < 3; j++) {
      double v = d;
      if (j == 2) v = v * 2 + 1;
      if (j == 2) v = d;
      keep("variable", v, i);
    }
    double v = bits64[1] ? d : d / 3;
    place = v;
    keep("choice", place, i);
    keep("sign", -__builtin_fabs(-__builtin_fabs(d)) < 0 || bits64[i] >> 63 ? d : -(-d), i);
  }
}

int main(void) {
  moved();
  hash = 0xCBF29CE484222325;
  OP2("f32.add", float, f32, a + b)
  OP2("f32.sub", float, f32, a - b)
  OP2("f32.mul", float, f32, a * b)
  OP2("f32.div", float, f32, a / b)
  OP2("f32.min", float, f32, __builtin_wasm_min_f32(a, b))
  OP2("f32.max", float, f32, __builtin_wasm_max_f32(a, b))
  OP2("f32.copysign", float, f32, __builtin_copysignf(a, b))
  OP2("f32 chain", float, f32, (a * b + a) / (b - a) - a * a)
  OP1("f32.sqrt", float, f32, float, __builtin_sqrtf(a))
  OP1("f32.ceil", float, f32, float, __builtin_ceilf(a))
  OP1("f32.floor", float, f32, float, __builtin_floorf(a))
  OP1("f32.trunc", float, f32, float, __builtin_truncf(a))
  OP1("f32.nearest", float, f32, float, __builtin_rintf(a))
  OP1("f32.neg", float, f32, float, -(a - a))
  OP1("f32.abs", float, f32, float, __builtin_fabsf(a - a))
  OP1("f64.promote", float, f32, double, (double)a)
  OP2("f64.add", double, f64, a + b)
  OP2("f64.sub", double, f64, a - b)
  OP2("f64.mul", double, f64, a * b)
  OP2("f64.div", double, f64, a / b)
  OP2("f64.min", double, f64, __builtin_wasm_min_f64(a, b))
  OP2("f64.max", double, f64, __builtin_wasm_max_f64(a, b))
  OP2("f64.copysign", double, f64, __builtin_copysign(a, b))
  OP2("f64 chain", double, f64, (a * b + a) / (b - a) - a * a)
  OP1("f64.sqrt", double, f64, double, __builtin_sqrt(a))
  OP1("f64.ceil", double, f64, double, __builtin_ceil(a))
  OP1("f64.floor", double, f64, double, __builtin_floor(a))
  OP1("f64.trunc", double, f64, double, __builtin_trunc(a))
  OP1("f64.nearest", double, f64, double, __builtin_rint(a))
  OP1("f64.neg", double, f64, double, -(a - a))
  OP1("f64.abs", double, f64, double, __builtin_fabs(a - a))
  OP1("f32.demote", double, f64, float, (float)a)
  OP1("copied", double, f64, double, a)
  vectors();
  double zero = f64(0), nan = zero / zero;
  uint64_t raw;
  memcpy(&raw, &nan, 8);
  printf("0/0 is %f, %016llx\n", nan, (unsigned long long)raw);
  return 0;
}
