/* Bytes in Lua strings as tensors, and back: kiln.frombuffer, t:tobytes(). Always copies. */
#include "bindings/lua/options.h"
#include <string.h>

static bool little_endian(void) {
  const uint16_t one = 1;
  unsigned char first;
  memcpy(&first, &one, 1);
  return first == 1;
}

/* n elements of `size` bytes, their bytes in the other order where `swap`. */
static void copy_elements(char *to, const char *from, size_t n, size_t size, bool swap) {
  if (!swap || size == 1) {
    if (n) memcpy(to, from, n * size);
    return;
  }
  for (size_t i = 0; i < n; i++, to += size, from += size)
    for (size_t k = 0; k < size; k++) to[k] = from[size - 1 - k];
}

/* Sizes for as many elements as there are: what is behind `at` must be whole elements. */
static int64_t count_rest(lua_State *L, size_t rest, kn_dtype dtype) {
  size_t size = kn_dtype_size(dtype);
  if (rest % size)
    kl_error(L, KN_SHAPE, "frombuffer: %zu bytes are no whole number of %s elements, which take %zu each",
             rest, kn_dtype_name(dtype), size);
  return (int64_t)(rest / size);
}

/* frombuffer(string [, {dtype = "float32", shape =, count =, offset = 0, big_endian = false}]) */
static int frombuffer(lua_State *L) {
  size_t n, bytes;
  const char *text = kl_check_text(L, 1, "frombuffer", "a string of bytes", &n);
  kn_dtype dtype = KN_F32;
  kn_type type = {.device = KN_CPU};
  int64_t count = 0, offset = 0;
  bool big = false;
  enum { DTYPE, SHAPE, COUNT, OFFSET };
  unsigned given = kl_read_options(L, 2, "frombuffer",
                                   (const kl_option[]){{"dtype", KL_OPTION_DTYPE, &dtype, 0},
                                                       {"shape", KL_OPTION_SIZES, &type, 0},
                                                       {"count", KL_OPTION_INT, &count, 0},
                                                       {"offset", KL_OPTION_INT, &offset, 0},
                                                       {"big_endian", KL_OPTION_BOOL, &big, 0},
                                                       {NULL, KL_OPTION_INT, NULL, 0}});
  if ((given >> SHAPE & 1u) && (given >> COUNT & 1u))
    return kl_error(L, KN_ARG, "frombuffer: give shape or count, not both");
  if ((uint64_t)offset > n)
    return kl_error(L, KN_INDEX, "frombuffer: offset is %lld, but there are %zu bytes", (long long)offset, n);
  type.dtype = (uint8_t)dtype;
  if (!(given >> SHAPE & 1u)) {
    type.rank = 1;
    type.dims[0] = given >> COUNT & 1u ? count : count_rest(L, n - (size_t)offset, dtype);
  }
  if (!kn_type_bytes(&type, &bytes) || bytes > n - (size_t)offset) {
    char shown[KN_TYPE_TEXT];
    return kl_error(L, KN_SHAPE, "frombuffer: %s does not fit into the %zu bytes from offset %lld on",
                    kn_type_text(&type, shown, sizeof shown), n - (size_t)offset, (long long)offset);
  }
  kn_tensor **slot = kl_reserve_tensor(L), *t;
  kl_check(L, kn_tensor_new(kl_context(L), &type, &t));
  unsigned char *to = kn_tensor_data(t);
  size_t size = kn_dtype_size(dtype);
  copy_elements((char *)to, text + offset, bytes / size, size, big == little_endian());
  for (size_t i = 0; dtype == KN_BOOL && i < bytes; i++) to[i] = to[i] != 0;
  kl_fill_tensor(L, slot, t);
  return 1;
}

/* t:tobytes([{big_endian = false}]): the elements row by row. */
static int tobytes(lua_State *L) {
  kn_context *ctx = kl_context(L);
  kn_tensor *t = kl_check_tensor(L, 1);
  bool big = false;
  kl_read_options(
      L, 2, "tobytes",
      (const kl_option[]){{"big_endian", KL_OPTION_BOOL, &big, 0}, {NULL, KL_OPTION_INT, NULL, 0}});
  if (!t->storage) return kl_error(L, KN_STATE, "tobytes: the elements are known only when the graph runs");
  t = kl_on_host(L, t);
  if (!kn_tensor_contiguous(t)) {
    kn_tensor **slot = kl_reserve_tensor(L), *dense;
    bool grad = ctx->grad_enabled;
    ctx->grad_enabled = false;
    kn_status st = kn_apply(ctx, KN_OP_clone, NULL, &t, 1, &dense);
    ctx->grad_enabled = grad;
    kl_check(L, st);
    kl_fill_tensor(L, slot, t = dense);
  }
  size_t size = kn_dtype_size(kn_tensor_dtype(t)), n = (size_t)kn_tensor_numel(t);
  luaL_Buffer b;
  char *to = luaL_buffinitsize(L, &b, n * size);
  copy_elements(to, kn_tensor_data(t), n, size, big == little_endian());
  luaL_pushresultsize(&b, n * size);
  return 1;
}

void kl_open_buffers(lua_State *L) {
  static const luaL_Reg functions[] = {{"frombuffer", frombuffer}, {NULL, NULL}};
  static const luaL_Reg methods[] = {{"tobytes", tobytes}, {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
  kl_set_methods(L, methods, false, false);
}
