/* .npy files: what NumPy writes is read, what is written NumPy reads back the same, and headers that lie are
 * refused. */
#define _POSIX_C_SOURCE 200809L /* mkstemp */
#include "bindings/io/npy.h"
#include "spec/suite.h"
#include <unistd.h>

/* A file of format 1.0 (or another) around a header and some elements. */
static size_t file(char *buf, int version, const char *header, const void *elements, size_t bytes) {
  size_t n = strlen(header), at = version == 1 ? 10 : 12;
  memcpy(buf, "\x93NUMPY", 6);
  buf[6] = (char)version, buf[7] = 0;
  for (size_t i = 8; i < at; i++) buf[i] = (char)(n >> 8 * (i - 8) & 255);
  memcpy(buf + at, header, n);
  if (bytes) memcpy(buf + at + n, elements, bytes);
  return at + n + bytes;
}

/* Parsed from memory of exactly its size, so that a read past the end is seen. */
static bool parse(const char *bytes, size_t n, kn_npy *h, char *why, size_t size) {
  char *exact = malloc(n ? n : 1);
  memcpy(exact, bytes, n);
  bool good = kn_npy_parse(exact, n, h, why, size);
  free(exact);
  return good;
}

START_TEST(what_numpy_writes) {
  static const float six[] = {1, 2, 3, 4, 5, 6};
  char buf[512], why[160] = "";
  kn_npy h;
  float out[6];
  /* numpy 1.24: np.save of a (2, 3) float32 array: padded to a multiple of 64, ended by a line feed */
  char header[119];
  memset(header, ' ', 118);
  memcpy(header, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", 59);
  header[117] = '\n', header[118] = 0;
  for (int version = 1; version <= 3; version++) {
    size_t n = file(buf, version, header, six, sizeof six);
    ck_assert_msg(parse(buf, n, &h, why, sizeof why), "%s", why);
    ck_assert(h.type.dtype == KN_F32 && h.type.rank == 2 && h.type.dims[0] == 2 && h.type.dims[1] == 3);
    kn_npy_elements(&h, buf, out);
    ck_assert_int_eq(memcmp(out, six, sizeof six), 0);
  }
  size_t n = file(buf, 1, "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }\n", six, sizeof six);
  ck_assert(parse(buf, n, &h, why, sizeof why));
  kn_npy_elements(&h, buf, out);
  ck_assert_int_eq(memcmp(out, (float[]){1, 3, 5, 2, 4, 6}, sizeof six), 0);
  static const unsigned char big[] = {0, 0, 0, 0, 0, 0, 1, 2, 255, 255, 255, 255, 255, 255, 255, 254};
  int64_t whole[2];
  n = file(buf, 1, "{'shape':(2,),\"descr\":\">i8\",'fortran_order':False}", big,
           sizeof big); /* any order of keys */
  ck_assert(parse(buf, n, &h, why, sizeof why));
  kn_npy_elements(&h, buf, whole);
  ck_assert(whole[0] == 258 && whole[1] == -2);
  n = file(buf, 1, "{'descr': '|b1', 'fortran_order': False, 'shape': (3,), }", "\0\1\7", 3);
  ck_assert(parse(buf, n, &h, why, sizeof why));
  kn_npy_elements(&h, buf, out);
  ck_assert_int_eq(memcmp(out, "\0\1\1", 3), 0);
  uint16_t halves[3];
  n = file(buf, 1, "{'descr': '>f2', 'fortran_order': False, 'shape': (3,), }", "\x3c\0\xc0\0\x7c\0", 6);
  ck_assert(parse(buf, n, &h, why, sizeof why) && h.type.dtype == KN_F16);
  kn_npy_elements(&h, buf, halves);
  ck_assert(halves[0] == 0x3c00 && halves[1] == 0xc000 && halves[2] == 0x7c00);
  static const char *const spelt[] = {"|u1", "|i1", "<i2", "<i4"};
  static const kn_dtype whole_dtypes[] = {KN_U8, KN_I8, KN_I16, KN_I32};
  for (int i = 0; i < 4; i++) {
    snprintf(header, sizeof header, "{'descr': '%s', 'fortran_order': False, 'shape': (1,), }", spelt[i]);
    n = file(buf, 1, header, "\5\0\0", (size_t)1 << (i ? i - 1 : 0));
    ck_assert(parse(buf, n, &h, why, sizeof why) && h.type.dtype == whole_dtypes[i]);
  }
  n = file(buf, 1, "{'descr': '<f8', 'fortran_order': False, 'shape': (), }", (double[]){2.5}, 8);
  ck_assert(parse(buf, n, &h, why, sizeof why) && h.type.rank == 0 && h.type.dtype == KN_F64);
  n = file(buf, 1, "{'descr': '<f8', 'fortran_order': True, 'shape': (0, 7), }", NULL, 0);
  ck_assert(parse(buf, n, &h, why, sizeof why) && h.bytes == 0);
  kn_npy_elements(&h, buf, out);
}
END_TEST

START_TEST(headers_that_are_refused) {
  static const struct {
    const char *header, *why;
  } bad[] = {
      {"{'descr': '|O', 'fortran_order': False, 'shape': (2,), }", "Python objects"},
      {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }", "records"},
      {"{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }", "dtype '<c8' is not supported"},
      {"{'descr': '<u4', 'fortran_order': False, 'shape': (2,), }", "dtype '<u4' is not supported"},
      {"{'descr': '|f4', 'fortran_order': False, 'shape': (2,), }", "dtype '|f4'"},
      {"{'descr': '', 'fortran_order': False, 'shape': (2,), }", "dtype ''"},
      {"{'descr': '<f4', 'fortran_order': 1, 'shape': (2,), }", "neither True nor False"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'x': 1}", "unknown key 'x'"},
      {"{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", "twice"},
      {"{'descr': '<f4', 'shape': (2,), }", "lacks"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (2), }", "not a tuple"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (-2,), }", "tuple of sizes"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,,), }", "tuple of sizes"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (2 3), }", "tuple of sizes"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }", "too large"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 4), }", "too large"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4), }", "too large"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,2), }", "8 dimensions"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }",
       "promises 12 bytes of elements, the file has 8"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }",
       "promises 4 bytes of elements, the file has 8"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), } x", "goes on"},
      {"{'descr': '<f4' 'fortran_order': False, 'shape': (2,)}", "comma"},
      {"{'descr' '<f4', 'fortran_order': False, 'shape': (2,)}", "colon"},
      {"{'descr': '<f4", "no end"},
      {"{'de\\x00scr': '<f4', 'fortran_order': False, 'shape': (2,)}", "odd characters"},
      {"{'descr': f4, 'fortran_order': False, 'shape': (2,)}", "quoted name"},
      {"('descr', '<f4')", "not a dictionary"},
      {"", "not a dictionary"},
  };
  char buf[512], why[160];
  kn_npy h;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    size_t n = file(buf, 1, bad[i].header, (float[]){1, 2}, 8);
    why[0] = 0;
    ck_assert_msg(!parse(buf, n, &h, why, sizeof why), "taken: %s", bad[i].header);
    ck_assert_msg(strstr(why, bad[i].why) != NULL, "%s: \"%s\" in \"%s\"", bad[i].header, bad[i].why, why);
  }
  size_t n = file(buf, 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", (float[]){1, 2}, 8);
  ck_assert(parse(buf, n, &h, why, sizeof why));
  for (size_t cut = 0; cut < n; cut++)
    ck_assert_msg(!parse(buf, cut, &h, why, sizeof why), "cut at %zu", cut);
  buf[6] = 4;
  ck_assert(!parse(buf, n, &h, why, sizeof why) && strstr(why, "version 4.0"));
  buf[6] = 2; /* the length is then of four bytes, and far too long */
  ck_assert(!parse(buf, n, &h, why, sizeof why) && strstr(why, "too long"));
}
END_TEST

/* Any change of any byte of a good file is either refused or still describes the bytes that are there. */
START_TEST(every_byte_changed) {
  char buf[512], why[160];
  kn_npy h;
  size_t n = file(buf, 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1, 3), }    \n",
                  (float[]){1, 2, 3, 4, 5, 6}, 24);
  int taken = 0;
  for (size_t i = 0; i < n - 24; i++)
    for (int v = 0; v < 256; v++) {
      char was = buf[i];
      buf[i] = (char)v;
      if (parse(buf, n, &h, why, sizeof why)) {
        float out[6];
        size_t bytes;
        taken++;
        if (!kn_type_bytes(&h.type, &bytes) || bytes != h.bytes || h.offset + h.bytes != n)
          ck_abort_msg("byte %zu as %d is taken wrongly", i, v);
        if (bytes == sizeof out) kn_npy_elements(&h, buf, out);
      }
      buf[i] = was;
    }
  ck_assert_int_gt(taken, 0);
}
END_TEST

START_TEST(files_there_and_back) {
  kn_context *c = suite_context();
  char path[] = "/tmp/kiln-npy-XXXXXX"; /* the X are mkstemp's */
  int fd = mkstemp(path);
  ck_assert_int_ge(fd, 0);
  close(fd);
  for (int rank = 0; rank <= KN_MAX_RANK; rank++)
    for (int d = 0; d < KN_DTYPE_COUNT; d++) {
      kn_type type = {.dtype = (uint8_t)d, .rank = (uint8_t)rank};
      for (int i = 0; i < rank; i++) type.dims[i] = 1 + i % 3;
      kn_tensor *t, *back;
      OK(c, kn_tensor_new(c, &type, &t));
      for (size_t i = 0; i < t->storage->bytes; i++)
        ((char *)t->storage->data)[i] = (char)(d == KN_BOOL ? i % 2 : i % 50);
      if (d == KN_BF16) {
        FAILS(c, KN_DTYPE, "the .npy format has no bfloat16; cast the tensor to float32 first",
              kn_npy_write(c, path, t));
        kn_tensor_release(t);
        continue;
      }
      OK(c, kn_npy_write(c, path, t));
      OK(c, kn_npy_read(c, path, &back));
      ck_assert(kn_type_equal(&t->type, &back->type));
      ck_assert_int_eq(memcmp(kn_tensor_data(t), kn_tensor_data(back), t->storage->bytes), 0);
      kn_tensor_release(t);
      kn_tensor_release(back);
    }
  kn_type type = {.dtype = KN_F32, .rank = 2, .dims = {2, 3}};
  kn_tensor *t, *back; /* a transposed view is written row-major */
  OK(c, kn_tensor_new(c, &type, &t));
  for (int i = 0; i < 6; i++) ((float *)kn_tensor_data(t))[i] = (float)i;
  t->type.dims[0] = 3, t->type.dims[1] = 2, t->strides[0] = 1, t->strides[1] = 3;
  OK(c, kn_npy_write(c, path, t));
  OK(c, kn_npy_read(c, path, &back));
  ck_assert_int_eq(memcmp(kn_tensor_data(back), (float[]){0, 3, 1, 4, 2, 5}, 24), 0);
  kn_tensor_release(t);
  kn_tensor_release(back);
  unlink(path);
  kn_tensor *none = NULL;
  FAILS(c, KN_IO, path, kn_npy_read(c, path, &none));
  FAILS(c, KN_IO, "/nowhere/x.npy", kn_npy_read(c, "/nowhere/x.npy", &none));
  ck_assert_ptr_null(none);
  suite_done(c);
}
END_TEST

SUITE("npy", what_numpy_writes, headers_that_are_refused, every_byte_changed, files_there_and_back)
